//! The broker without a network: what it promises, over real metadata, a real store and real write-ahead logs.

mod activations;
mod agents;
mod breaker;
mod closing;
mod dead_letters;
mod fetching;
mod following;
mod gate;
mod guarding;
mod histories;
mod leases;
mod merging;
mod modules;
mod orphans;
mod owner;
mod policies;
mod producing;
mod recovery;
mod reopening;
mod retention;
mod support;
mod topics;
mod trial_calls;
mod uploads;
mod versions;
mod watching;
