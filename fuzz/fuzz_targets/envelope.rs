//! The envelope reader never panics, and what it makes of a message reads back to the same: no unknown member, no second
//! id, no other method.
#![no_main]

use countersign::adapters::upstream::Envelope;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(envelope) = Envelope::read(bytes) else { return };
    let rebuilt = envelope.rebuilt(envelope.id());
    assert!(!rebuilt.contains(['\n', '\r']));
    let again = Envelope::read(rebuilt.as_bytes()).unwrap();
    assert_eq!((again.id(), &again.method), (envelope.id(), &envelope.method));
    assert_eq!(again.rebuilt(again.id()), rebuilt);
});
