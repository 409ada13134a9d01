//! Behaviour of the whole program, through the operations and through the binary. One binary, so that it links once.

mod support;

mod cache;
mod cli;
mod crash;
mod damage;
mod determinism;
mod golden;
mod protocol;
mod prune;
mod prune_faults;
mod round_trip;
mod tidy;
