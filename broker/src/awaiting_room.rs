//! Partitions whose logs found no room on any drive: refused until there is some, then made.

use std::io::ErrorKind;
use std::rc::{Rc, Weak};
use std::time::Duration;

use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::ids::TopicPartition;
use corrente_runtime::executor::{Queue, spawn_in};
use corrente_runtime::timer;
use corrente_storage::CreateError;

use crate::reconcile::{lead, unavailable};
use crate::shard::{Place, Shard, Slot};

/// How often room is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Refuses a partition for want of room, and makes its log as soon as there is room.
pub fn refuse(shard: &Rc<Shard>, id: TopicPartition) -> Slot {
    spawn_in(Queue::Background, make_once_there_is_room(Rc::downgrade(shard), id)).detach();
    unavailable(id, ErrorCode::DiskFull, &CreateError::NoRoom)
}

/// Ends with the shard, with the partition, or when it is made.
async fn make_once_there_is_room(shard: Weak<Shard>, id: TopicPartition) {
    loop {
        timer::sleep(LOOK_EVERY).await;
        let Some(shard) = shard.upgrade() else { return };
        if shard.is_stopping() || !awaits_room(&shard, id) {
            return;
        }
        let slot = match shard.storage.place_log(id).await {
            Err(CreateError::NoRoom) => continue,
            Err(CreateError::Io { source, .. }) if source.kind() == ErrorKind::StorageFull => continue,
            Err(CreateError::Closed) => return,
            Err(error) => unavailable(id, ErrorCode::StorageError, &error),
            Ok(log) => lead(&shard, id, log),
        };
        take_place(&shard, id, slot).await;
        return;
    }
}

fn awaits_room(shard: &Shard, id: TopicPartition) -> bool {
    matches!(shard.place(id), Place::Here(Slot::Unavailable(refusal)) if refusal.code == ErrorCode::DiskFull)
}

async fn take_place(shard: &Shard, id: TopicPartition, slot: Slot) {
    // A log that no checkpoint knows would be made anew, empty, if its drive were gone at the next start.
    if let Err(error) = shard.storage.checkpoint_now().await {
        tracing::warn!(%error, "a checkpoint could not be written; it is tried again");
    }
    if awaits_room(shard, id) {
        if matches!(slot, Slot::Serving(_)) {
            tracing::info!(partition = %id, "there is room now: the partition is served");
        }
        shard.remove(id);
        shard.insert(id, slot);
    } else if !shard.is_stopping()
        && let Err(error) = shard.storage.delete_log(id).await
    {
        // The topic was deleted while the log was made.
        let what = "a removed partition's log is still on disk; the next start removes it";
        tracing::warn!(partition = %id, %error, "{what}");
    }
}
