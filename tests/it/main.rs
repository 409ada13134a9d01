//! Behaviour of the whole program, through the operations and through the binary. One binary, so that it links once.

mod support;

mod cache;
mod cli;
mod copy;
mod corpus;
mod crash;
mod damage;
mod determinism;
mod diff;
mod drill;
mod dumps;
mod forget;
mod golden;
mod keys;
mod loading;
mod nights;
mod producers;
mod receipts;
mod repair;
mod retention;
mod round_trip;
mod tidy;
