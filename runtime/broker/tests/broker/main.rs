//! The broker without a network: what it promises, over real metadata, a real store and real write-ahead logs.

mod agents;
mod breaker;
mod closing;
mod dead_letters;
mod following;
mod gate;
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
mod uploads;
mod versions;
mod watching;
