//! Keeping attachments as they were asked for: those that are to come back do, and what killed helpers left goes.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::tend::Tending;
use super::{Role, attach_here, detach_here, uses};
use crate::api::Detach;
use crate::attach::launch;
use crate::attach::place::{Place, State};
use crate::control::node::Node;
use crate::ring::loopback::is_claimed;
use crate::units::VolumeId;

/// Looks after the attachments, until it is dropped.
pub async fn keep(node: Arc<Node>) {
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut later: BTreeMap<String, (Instant, Duration)> = BTreeMap::new();
    let mut tending = Tending::default();
    loop {
        tokio::select! {
            _ = look.tick() => {}
            () = node.attachments.links.broken() => {
                tending.look(&node, &launch::living(&node.root).unwrap_or_default());
                continue;
            }
            () = tending.done() => continue,
        }
        let living = launch::living(&node.root).unwrap_or_default();
        tending.look(&node, &living);
        uses::watch(&node, &living).await;
        clear_away(&node).await;
        drop_unmounted(&node, &living).await;
        for (key, asked) in node.attachments.persistent.all() {
            let volume = asked.volume.unwrap_or(VolumeId(0));
            if Place::of(&node.root, &asked.resource, volume).is_alive()
                || later.get(&key).is_some_and(|(when, _)| *when > Instant::now())
            {
                continue;
            }
            match attach_here(&node, &asked, Role::Asked).await {
                Ok(made) => {
                    tracing::info!(volume = %key, device = %made.device.display(), "attached again");
                    later.remove(&key);
                }
                Err(error) => {
                    let pause = later.get(&key).map_or(LOOK, |(_, pause)| (*pause * 2).min(LONGEST));
                    tracing::warn!(volume = %key, %error, "cannot be attached again yet");
                    later.insert(key, (Instant::now() + pause, pause));
                }
            }
        }
    }
}

/// Takes away what killed helpers left, unless the volume is just being attached.
async fn clear_away(node: &Arc<Node>) {
    let places = Place::all(&node.root).unwrap_or_default();
    for (place, state) in places.iter().filter_map(|place| Some((place, place.state().ok()?))) {
        if place.is_stuck(&state) {
            tracing::warn!(resource = %state.resource, volume = %state.volume, "an attachment's helper was killed and waits for itself; its device fails");
            launch::break_off(place);
        }
    }
    for place in places.into_iter().filter(is_left) {
        let Some((resource, volume)) = place.volume() else { continue };
        let _turn = node.attachments.turn(&resource, volume).await;
        if is_left(&place) {
            tracing::info!(%resource, %volume, "an attachment's helper has died; it is taken away");
            launch::clear_away(&place);
        }
    }
}

/// Whether nobody serves the place: its helper is gone, or was killed before there was anything to serve, or after. A place whose
/// state cannot be understood is nobody's to remove.
fn is_left(place: &Place) -> bool {
    let known = !matches!(place.state(), Err(error) if error.kind() != ErrorKind::NotFound);
    known && !place.is_alive()
}

/// Takes away what was attached for a mount that is there no more: one whose unmount took longer than anybody waited for it.
async fn drop_unmounted(node: &Arc<Node>, living: &[(Place, State)]) {
    let idle = |state: &State| {
        state.for_mount
            && !node.attachments.is_mounting(&state.resource, state.volume)
            && matches!(is_claimed(&state.device), Ok(false))
    };
    for (_, state) in living.iter().filter(|(_, state)| idle(state)) {
        let detach = Detach { resource: state.resource.clone(), volume: Some(state.volume), node: None };
        let Some(_mounting) = node.attachments.mounting(&state.resource, state.volume) else { continue };
        match detach_here(node, &detach).await {
            Ok(_) => tracing::info!(resource = %state.resource, volume = %state.volume, "detached after its unmount"),
            Err(error) => tracing::debug!(resource = %state.resource, %error, "cannot be detached yet"),
        }
    }
}

const LOOK: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
