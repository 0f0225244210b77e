//! Every message of the relay's protocol, in both directions.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pouch_protocol::{
    AccessPage, Account, Accounts, BundleStatus, Commit, Devices, Extension, Inbox, InboxItem, JoinRequest,
    JoinResponse, Links, NewBundle, NewDevice, NewLink, NewPipeline, NewRole, NewRotation, Outbox, Pipelines, Problem,
    ReceiptMessage, RelayInfo, Rotations, Takedown,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What is taken says the same once more.
fn read<T: DeserializeOwned + Serialize>(bytes: &[u8]) {
    let Ok(message) = serde_json::from_slice::<T>(bytes) else { return };
    let written = serde_json::to_vec(&message).expect("it was read from JSON");
    let again: T = serde_json::from_slice(&written).expect("what is written is read");
    assert_eq!(serde_json::to_vec(&again).expect("it is the same"), written);
}

fuzz_target!(|bytes: &[u8]| {
    read::<JoinRequest>(bytes);
    read::<NewLink>(bytes);
    read::<NewRole>(bytes);
    read::<NewDevice>(bytes);
    read::<NewRotation>(bytes);
    read::<NewPipeline>(bytes);
    read::<NewBundle>(bytes);
    read::<Extension>(bytes);
    read::<Commit>(bytes);
    read::<ReceiptMessage>(bytes);
    read::<Takedown>(bytes);
    read::<RelayInfo>(bytes);
    read::<JoinResponse>(bytes);
    read::<Links>(bytes);
    read::<Devices>(bytes);
    read::<Rotations>(bytes);
    read::<Pipelines>(bytes);
    read::<Account>(bytes);
    read::<Accounts>(bytes);
    read::<BundleStatus>(bytes);
    read::<Outbox>(bytes);
    read::<InboxItem>(bytes);
    read::<Inbox>(bytes);
    read::<AccessPage>(bytes);
    read::<Problem>(bytes);
});
