//! Decides, never does: no I/O, no clock, no `async`.
//!
//! From the ground up: [`json`], [`digest`], [`forms`] and [`clock`]; [`tool`] and [`call`] (what was asked); [`risk`] (how
//! dangerous, and why); [`policy`] (what the owner of a tool wants); [`decision`]; [`approval`] (the state machine);
//! [`audit`] (the record); [`permit`] (the one value that lets a call through). Each names only those before it.

pub mod approval;
pub mod audit;
pub mod call;
pub mod clock;
pub mod decision;
pub mod digest;
pub mod forms;
pub mod json;
pub mod permit;
pub mod policy;
pub mod risk;
pub mod scrub;
pub mod text;
pub mod tool;
