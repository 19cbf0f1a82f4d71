//! Countersign.

pub mod adapters;
pub mod app;
pub mod cli;
pub mod domain;
pub mod downstream;
pub mod gateway;
pub mod sample;
pub mod system;
