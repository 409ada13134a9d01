//! Keys, sealing and key slots: the only place where secrets are handled.
//!
//! Everything is derived from a random master key with one fixed context a purpose. A nonce is never an argument: the sealing type
//! owns it. What these functions promise and what an attacker still sees is in `docs/FORMAT.md`.

mod content;
mod keys;
mod leaves;
mod seal;
mod unlock;
mod words;

pub use content::ContentHasher;
pub use keys::{Keys, MasterKey};
pub use leaves::{LeafHasher, Leaves};
pub use seal::{Entropy, SEAL_BYTES, SealKey, Sealer};
pub use unlock::{Secret, create_slot, open_slot};
pub use words::{Recovery, WORDS, WordsError, is_word};
