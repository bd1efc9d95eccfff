//! Volumes as block devices, and file systems on them.

use std::path::PathBuf;
use std::time::Duration;

use crate::api::setup::HelperOptions;
use crate::api::{Attach, Attachment, Detach, FileSystem, ListAttachments, Mount, Service, Unmount, Via};
use crate::cli::exit::Failure;
use crate::cli::given::Given;
use crate::cli::lists::{LISTING, List};
use crate::cli::output::Format;
use crate::cli::session::Session;
use crate::cli::spec::{Arg, Category, Example, Runtime, Takes, Verb};
use crate::cli::table::{Table, left, right};
use crate::cli::target::Target;
use crate::units::Name;

use super::program;

const VOLUME: Arg = Arg::place("volume", Takes::Target, "The volume; RES alone means its volume 0");

const ON: Arg = Arg::option("node", None, Takes::Node, "On this node instead of the one that is asked");

/// The verbs.
pub(super) const VERBS: &[Verb] = &[
    Verb {
        name: "attach",
        aliases: &[],
        category: Category::Using,
        short: "Make a volume a block device",
        long: "Prints the device. The kernel's NBD client makes it where there is one (--via nbd: Linux 5.14 or later with the module nbd), \
               else a process of its own with FUSE and a loop device (--via fuse). When the daemon is restarted, or killed, whatever uses \
               the device waits, for up to five minutes, and then gets errors until the daemon is back. It is admitted again only when no \
               other node has come to use the volume meanwhile. Several nodes may attach a volume at a time, with a replica or without, \
               as a live migration does: what one has written the others read. Only direct I/O, or a file system made for it, may use \
               such a device: what is in one node's caches the others do not see. A file system that you mount yourself wants \
               --exclusive. When the volume grows, so does the device. One that is attached already stays as \
               it is, and its device is printed. It ends with `blkrep detach`, or with the machine. With several sockets the kernel uses \
               several queues; but then it takes a connection for broken whose requests are not answered for 30 seconds, where with one \
               it waits for as long as I/O is suspended.",
        args: &[&[
            VOLUME,
            ON,
            Arg::flag("read-only", None, "Refuse writes to the device"),
            Arg::flag("exclusive", None, "Be the only client of all nodes, and refuse to share the device"),
            Arg::flag("persistent", None, "Attach it again whenever the daemon starts and it is not there"),
            Arg::option(
                "via",
                None,
                Takes::OneOf(&["nbd", "fuse"]),
                "What makes the device; the kernel's NBD client if there is one",
            ),
            Arg::option(
                "sockets",
                None,
                Takes::Number("N"),
                "So many connections of the kernel's NBD client, 1 to 16; 1 is usual",
            ),
        ]],
        examples: &[
            Example { line: "attach web", does: "Make the volume 0 of web a block device of this node" },
            Example { line: "attach web/1 --persistent", does: "Make the volume 1 one, now and after every boot" },
            Example { line: "attach web --via fuse", does: "Do without the kernel's NBD client" },
        ],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(attach(session, given)),
    },
    Verb {
        name: "detach",
        aliases: &[],
        category: Category::Using,
        short: "Take a volume's block device away",
        long: "What the device's cache holds is written first. It is refused while the device is mounted. A persistent one does not come \
               back.",
        args: &[&[VOLUME, ON]],
        examples: &[Example { line: "detach web", does: "Take the device of the volume 0 of web away" }],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(detach(session, given)),
    },
    Verb {
        name: "list-attachments",
        aliases: &["attachments"],
        category: Category::Using,
        short: "List the volumes that are block devices",
        long: "Those of every node that answers. With -m the fields of a line are: node, resource, volume number, device, flags joined \
               by | (ro, exclusive, persistent), what makes the device (nbd or fuse).",
        args: &[LISTING, &[Arg::options("resources", Some('R'), Takes::Resource, "These only"), ON]],
        examples: &[Example { line: "list-attachments", does: "List the block devices of all nodes" }],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(list(session, given)),
    },
    Verb {
        name: "mount",
        aliases: &[],
        category: Category::Using,
        short: "Mount a volume's file system",
        long: "Attaches the volume on this node and mounts it at a directory, which must be there. While it is mounted, no other node \
               has it, not even for reading; where one has it attached, or it is attached here without --exclusive, it is refused. With \
               --read-only it is mounted without its journal's being replayed, and any number of nodes may do so while none may write. \
               With --mkfs a file system is made first, when blkrep has made none yet and the volume holds nothing: no signature, and only \
               zeroes at its beginning and its end. One that is there is never made again, so that the same command is right the second time. An ext4 is checked before. When the volume has grown, the file system grows \
               with it, then and while it is mounted. `blkrep umount` undoes both.",
        args: &[&[
            VOLUME,
            Arg::place("path", Takes::Path, "The directory"),
            Arg::option("fs", None, Takes::OneOf(&["ext4", "xfs", "btrfs"]), "The kind; ext4 when one is made"),
            Arg::flag("mkfs", None, "Make the file system if the volume is new"),
            Arg::option("mkfs-opts", None, Takes::Text("OPTIONS"), "More options of mkfs, separated by spaces").default(""),
            Arg::option("mount-opts", Some('o'), Takes::Text("OPTIONS"), "More options of mount, separated by commas")
                .default(""),
            Arg::flag("read-only", None, "Write nothing, and replay no journal"),
        ]],
        examples: &[Example {
            line: "mount web /srv/web --fs xfs --mkfs",
            does: "Mount web, and make an XFS on it the first time",
        }],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(mount(session, given)),
    },
    Verb {
        name: "umount",
        aliases: &["unmount"],
        category: Category::Using,
        short: "Unmount a volume's file system",
        long: "A device that `blkrep mount` made goes with it; one that `blkrep attach` made stays.",
        args: &[&[
            Arg::place("path", Takes::Path, "The directory"),
            Arg::flag("lazy", Some('l'), "Also while it is in use, or when the volume does not answer"),
        ]],
        examples: &[Example { line: "umount /srv/web", does: "Unmount what is mounted at /srv/web" }],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(umount(session, given)),
    },
    Verb {
        name: "attach-helper",
        aliases: &[],
        category: Category::Internal,
        short: "Keep an attachment alive",
        long: "The daemon starts it; it is of no use by hand.",
        args: &[&[
            Arg::place("directory", Takes::Path, "The attachment's directory"),
            Arg::option("patience", None, Takes::Number("SECONDS"), "How long to wait for a daemon that is away").default("300"),
            Arg::option("log", None, Takes::Text("FILTER"), "What to log").default("info").env("BLKREP_LOG"),
        ]],
        examples: &[Example { line: "attach-helper /run/blkrep/attach/web@0", does: "Keep an attachment of web alive" }],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(helper(session, given)),
    },
];

async fn attach(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let Target { resource, volume } = given.one("volume");
    let attach = Attach {
        resource,
        volume,
        node: given.maybe("node"),
        read_only: given.flag("read-only"),
        exclusive: given.flag("exclusive"),
        persistent: given.flag("persistent"),
        via: given.maybe::<String>("via").map(|via| via.parse::<Via>().expect("the table's words are ways")),
        // More than there may be is refused all the same.
        sockets: given.maybe::<u64>("sockets").map(|count| u32::try_from(count).unwrap_or(u32::MAX)),
    };
    let made = session.client.attach(attach).await?;
    match session.output.format {
        Format::Json => session.output.json(&made),
        Format::Csv | Format::Table => session.output.line(made.device.display()),
    }
}

async fn detach(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let Target { resource, volume } = given.one("volume");
    let done = session.client.detach(Detach { resource, volume, node: given.maybe("node") }).await?;
    session.output.done(&done, &done.notes)
}

async fn list(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let only: Vec<Name> = given.many("resources");
    let asked = ListAttachments { resource: super::resources::single(&only), node: given.maybe("node") };
    let mut all = session.client.list_attachments(asked).await?;
    all.retain(|one| only.is_empty() || only.contains(&one.resource));
    ATTACHMENTS.print(&session.output, given, all)
}

async fn mount(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let Target { resource, volume } = given.one("volume");
    let fs = given.maybe::<String>("fs").map(|kind| kind.parse::<FileSystem>().expect("the table's words are file systems"));
    let mount = Mount {
        resource,
        volume,
        path: absolute(&given.one::<PathBuf>("path"))?,
        fs,
        mkfs: given.flag("mkfs"),
        mkfs_options: given.one("mkfs-opts"),
        mount_options: given.one("mount-opts"),
        read_only: given.flag("read-only"),
    };
    let path = mount.path.clone();
    let mounted = session.client.mount(mount).await?;
    match session.output.format {
        Format::Json => session.output.json(&mounted),
        Format::Csv | Format::Table => {
            let made = if mounted.made { ", made just now" } else { "" };
            session.output.line(format_args!("{} at {} ({}{made})", mounted.device.display(), path.display(), mounted.fs))
        }
    }
}

async fn umount(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let unmount = Unmount { path: absolute(&given.one::<PathBuf>("path"))?, lazily: given.flag("lazy") };
    let done = session.client.unmount(unmount).await?;
    session.output.done(&done, &done.notes)
}

async fn helper(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    program::log(given)?;
    let patience = Duration::from_secs(given.one("patience"));
    let options = HelperOptions { root: session.root.clone(), directory: given.one("directory"), patience };
    session.setup.attach_helper(options).await.map_err(Failure::from)
}

/// The directory as the daemon, which is somewhere else, has to be told of it.
fn absolute(path: &std::path::Path) -> Result<PathBuf, Failure> {
    let whole = path.canonicalize().or_else(|_| std::path::absolute(path));
    whole.map_err(|error| Failure::io(path.display(), &error))
}

const ATTACHMENTS: List<Attachment> = List {
    empty: "No volumes attached",
    order: |one| vec![one.node.to_string(), one.resource.to_string(), one.volume.to_string()],
    csv: |one| {
        format!("{},{},{},{},{},{}", one.node, one.resource, one.volume, one.device.display(), flags(one).join("|"), one.via)
    },
    table: |all| {
        let columns =
            [left("Node"), left("Resource"), right("Vol ID"), left("Device"), left("Via"), left("Mounted at"), left("Flags")];
        let mut table = Table::new(columns);
        for one in all {
            let mounts: Vec<String> = one.mounts.iter().map(|path| path.display().to_string()).collect();
            table.row([
                (&one.node).into(),
                (&one.resource).into(),
                one.volume.into(),
                one.device.display().into(),
                one.via.into(),
                mounts.join(" ").into(),
                flags(one).join(" ").into(),
            ]);
        }
        table
    },
    extra: &[],
};

fn flags(one: &Attachment) -> Vec<&'static str> {
    let all = [(one.read_only, "ro"), (one.exclusive, "exclusive"), (one.persistent, "persistent")];
    all.into_iter().filter(|(set, _)| *set).map(|(_, word)| word).collect()
}
