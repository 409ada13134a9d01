//! Behaviour of the whole program, through the operations and through the binary. One binary, so that it links once.

mod support;

mod cache;
mod cli;
mod config;
mod copy;
mod corpus;
mod crash;
mod crowd;
mod damage;
mod determinism;
mod diff;
mod drill;
mod dumps;
mod forget;
mod golden;
mod jobs;
mod keys;
mod nights;
mod power;
mod proof;
mod protocol;
mod prune;
mod prune_faults;
mod prune_races;
mod receipts;
mod repair;
mod retention;
mod round_trip;
mod run;
mod serve;
mod simulation;
mod sweep;
mod tidy;
mod trace;
mod watch;
