//! Countersign.

pub mod adapters;
pub mod app;
pub mod domain;
pub mod downstream;
pub mod gateway;
pub mod sample;
pub mod system;
