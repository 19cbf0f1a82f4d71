//! What the operator reads on standard error. Libraries that log messages or secrets below warnings are kept at that.

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Starts logging; `verbose` once for debugging.
pub fn start(level: LevelFilter, colour: bool) {
    let filter = Targets::new().with_default(LevelFilter::WARN).with_target("countersign", level);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(colour).compact();
    // A second start, in tests, changes nothing.
    drop(tracing_subscriber::registry().with(filter).with(lines).try_init());
}
