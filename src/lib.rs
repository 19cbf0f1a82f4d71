//! Countersign.

pub mod adapters;
pub mod domain;
pub mod system;
