//! A stand-in for an engine: one disk, no peers. For tests of this room alone.

use std::collections::BTreeMap;

use crate::engine::{
    BufferId, ClientId, Command, DiskIo, DiskOutcome, Event, Failure, Identity, Links, OpId, Request, RequestId, ResourceStatus,
    Settings,
};
use crate::format::Loaded;
use crate::units::{BLOCK, BlockRange, DiskState, Instant, Role};

#[derive(Debug)]
pub(super) struct Engine {
    identity: Identity,
    out: Vec<Command>,
    next_op: u64,
    running: BTreeMap<u64, Running>,
    waiting: Vec<(RequestId, ClientId, Request)>,
    stopping: bool,
    clients: usize,
}

#[derive(Debug, Clone)]
struct Running {
    id: RequestId,
    request: Request,
    range: Option<BlockRange>,
    edges: u32,
    failed: bool,
}

impl Engine {
    pub(super) fn start(identity: Identity, _: Settings, _: Option<Loaded>, _: Instant) -> Self {
        let (running, waiting) = (BTreeMap::new(), Vec::new());
        Self { identity, out: Vec::new(), next_op: 1, running, waiting, stopping: false, clients: 0 }
    }

    pub(super) fn handle(&mut self, _: Instant, _: &Links, event: Event) {
        match event {
            Event::Attach(client) => {
                self.clients += 1;
                self.out.push(Command::Attached { client, result: Ok(()) });
            }
            Event::Detach(client) => {
                self.clients -= 1;
                let (gone, stay) = std::mem::take(&mut self.waiting).into_iter().partition(|(_, of, _)| *of == client);
                self.waiting = stay;
                let gone: Vec<(RequestId, ClientId, Request)> = gone;
                gone.iter().filter_map(|(_, _, r)| buffer(r)).for_each(|b| self.out.push(Command::Release(b)));
            }
            Event::Request { id, client, request } => {
                self.waiting.push((id, client, request));
                self.start_some();
            }
            Event::DiskDone { op, outcome } => self.done(op, &outcome),
            Event::Stop => self.stopping = true,
            _ => {}
        }
        if self.stopping && self.running.is_empty() && self.waiting.is_empty() {
            self.stopping = false;
            self.out.push(Command::DropClients);
            self.out.push(Command::Stopped { clean: true });
        }
    }

    pub(super) fn take_commands(&mut self, into: &mut Vec<Command>) {
        into.append(&mut self.out);
    }

    pub(super) fn timeout(&self) -> Option<Instant> {
        None
    }

    pub(super) fn status(&self, _: Instant, _: &Links) -> ResourceStatus {
        ResourceStatus {
            resource: self.identity.resource,
            role: Role::Primary,
            primary: Some(self.identity.node),
            disk: DiskState::UpToDate,
            record: None,
            peers: Vec::new(),
            suspended: Vec::new(),
            clients: self.clients,
            volumes: Vec::new(),
        }
    }

    fn start_some(&mut self) {
        let mut stay: Vec<(RequestId, ClientId, Request)> = Vec::new();
        for (id, client, request) in std::mem::take(&mut self.waiting) {
            let range = range(&request);
            let clash = |other: &Option<BlockRange>| other.zip(range).is_some_and(|(a, b)| a.overlaps(&b));
            let blocked = self.running.values().any(|r| clash(&r.range))
                || stay.iter().any(|(_, _, r)| clash(&self::range(r)));
            if blocked {
                stay.push((id, client, request));
            } else {
                self.begin(Running { id, request, range, edges: 0, failed: false });
            }
        }
        self.waiting = stay;
    }

    fn begin(&mut self, mut running: Running) {
        if let (Request::Write { offset, len, buffer, .. }, Some(range)) = (running.request, running.range) {
            let (end, last) = (offset + len, range.end() - 1);
            let mut edges = Vec::new();
            if !offset.is_multiple_of(BLOCK) {
                edges.push((range.first, 0, 0, offset % BLOCK));
            }
            if !end.is_multiple_of(BLOCK) {
                edges.push((last, range.count - 1, end % BLOCK, BLOCK - end % BLOCK));
            }
            running.edges = u32::try_from(edges.len()).unwrap();
            for (first, block_in_buffer, from, len) in edges {
                let range = BlockRange { first, count: 1, ..range };
                self.disk(DiskIo::ReadEdge { range, buffer, block_in_buffer, from, len }, running.clone());
            }
            if running.edges > 0 {
                return;
            }
        }
        self.act(running);
    }

    fn act(&mut self, running: Running) {
        let io = match running.request {
            Request::Read { buffer, .. } => {
                DiskIo::Read { range: running.range.unwrap(), buffer: Some(buffer), detect_zeroes: false }
            }
            Request::Write { buffer, fua, .. } => DiskIo::Write { range: running.range.unwrap(), buffer, fua },
            Request::Zero { range, unmap, fua } => DiskIo::Zero { range, unmap, fua },
            Request::Flush => DiskIo::Flush,
        };
        self.disk(io, Running { edges: 0, ..running });
    }

    fn disk(&mut self, io: DiskIo, running: Running) {
        let op = self.next_op;
        self.next_op += 1;
        self.running.insert(op, running);
        self.out.push(Command::Disk { op: OpId(op), io });
    }

    fn done(&mut self, op: OpId, outcome: &DiskOutcome) {
        let mut running = self.running.remove(&op.0).unwrap();
        running.failed |= *outcome == DiskOutcome::Failed;
        if running.edges > 0 {
            running.edges -= 1;
            if let Some(other) = self.running.values_mut().find(|other| other.id == running.id) {
                other.edges = running.edges;
                other.failed |= running.failed;
                return;
            }
            if !running.failed {
                return self.act(running);
            }
        }
        let result = if running.failed { Err(Failure::Io) } else { Ok(()) };
        self.out.push(Command::Complete { id: running.id, result });
        buffer(&running.request).into_iter().for_each(|b| self.out.push(Command::Release(b)));
        self.start_some();
    }
}

fn range(request: &Request) -> Option<BlockRange> {
    match *request {
        Request::Read { volume, offset, len, .. } | Request::Write { volume, offset, len, .. } => {
            Some(BlockRange::covering(volume, offset, len))
        }
        Request::Zero { range, .. } => Some(range),
        Request::Flush => None,
    }
}

fn buffer(request: &Request) -> Option<BufferId> {
    match *request {
        Request::Read { buffer, .. } | Request::Write { buffer, .. } => Some(buffer),
        Request::Zero { .. } | Request::Flush => None,
    }
}
