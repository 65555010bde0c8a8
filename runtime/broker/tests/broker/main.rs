//! The broker without a network: what it promises, over real metadata, a real store and real write-ahead logs.

mod agents;
mod closing;
mod following;
mod gate;
mod histories;
mod leases;
mod merging;
mod orphans;
mod owner;
mod producing;
mod recovery;
mod reopening;
mod retention;
mod support;
mod topics;
mod uploads;
