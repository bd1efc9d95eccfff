//! What a node has already becomes a volume.

use std::time::Duration;

use crate::api::{AdoptVolume, Service};
use crate::cli::exit::Failure;
use crate::cli::given::Given;
use crate::cli::session::Session;
use crate::cli::spec::{Arg, Category, Example, Runtime, Takes, Verb};
use crate::units::VolumeId;

use super::options::{RESOURCE_OPTIONS, values};
use super::resources::settle;

/// The verbs.
pub(super) const VERBS: &[Verb] = &[Verb {
    name: "adopt",
    aliases: &["adopt-volume"],
    category: Category::Volumes,
    short: "Make a volume of a logical volume or file",
    long: "A logical volume of a volume group that is a pool of this node, or a file on the file system of a pool of files, becomes \
           the first replica of a new resource, with all that is on it: nothing is copied or changed, for the metadata lies beside it. \
           It gets the name of a volume of the pool (RESOURCE_00), and a file moves into the pool's directory; whatever names it \
           otherwise, such as /etc/fstab, has to name the volume from then on. Other replicas get a full sync. Devices of `blkrep attach` have \
           sectors of 4096 bytes: a partition table, an XFS or an ext4 that was made with smaller sectors or blocks is for NBD clients \
           that use those, such as qemu. What is in use, \
           somebody else's, a snapshot or a part of something is refused. A resource that is removed before its first replica was \
           ready gives back what it adopted; later, it is removed with its data like any other.",
    args: &[
        &[
            Arg::place("name", Takes::Resource, "The new resource, or one without volumes"),
            Arg::place(
                "source",
                Takes::Text("GROUP/VOLUME|FILE"),
                "The logical volume, or the full path of the file, on this node",
            ),
            Arg::option("deploy", Some('d'), Takes::Count, "How many replicas there shall be [default: this one]"),
            Arg::option("pool", None, Takes::PoolName, "This node's pool that takes it [default: the one that it is in]"),
            Arg::option("wait", None, Takes::Number("SECONDS"), "How long to wait until it can be used").default("30"),
        ],
        RESOURCE_OPTIONS,
    ],
    examples: &[
        Example { line: "adopt web vg0/webdata --deploy 2", does: "Replicate the logical volume webdata" },
        Example { line: "adopt db /srv/pool/db.img", does: "Make the volume of db of a disk image" },
    ],
    runtime: Runtime::Small,
    run: |session, given| Box::pin(adopt(session, given)),
}];

async fn adopt(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let patience = Duration::from_secs(given.one("wait"));
    let request = AdoptVolume {
        resource: given.one("name"),
        source: given.one("source"),
        deploy: given.maybe("deploy"),
        options: values(given),
        pool: given.maybe("pool"),
    };
    let resource = request.resource.clone();
    let added = session.client.adopt_volume(request).await?;
    let notes: Vec<String> = settle(session, &resource, VolumeId(0), patience).await.into_iter().collect();
    session.output.done(&added, &notes)
}
