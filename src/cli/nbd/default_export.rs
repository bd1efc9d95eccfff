//! Giving the default export a name, in a client's half of a handshake that passes by.
//!
//! A client at the other end of a pipe asks for the export that has no name. The server knows exports by their names. So the
//! empty name in the client's options is replaced, and everything else passes as it is.

use crate::nbd::option::{self, OptionCode};

/// The client's flags, before its first option.
const CLIENT_FLAGS: usize = 4;

/// Magic, code and length of an option.
const OPTION_HEAD: usize = 16;

/// The longest option that is looked into; longer ones are for the server to refuse.
const LONGEST: usize = 64 * 1024;

/// What a client says, with the default export's name filled in.
pub(super) struct DefaultExport {
    name: Vec<u8>,
    /// What has come and is not complete yet.
    pending: Vec<u8>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The client's flags come next.
    Flags,
    /// An option comes next, or the transmission phase.
    Options,
    /// Whatever comes is not looked into any more.
    Passing,
}

impl DefaultExport {
    /// Fills in `name`.
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.as_bytes().to_vec(), pending: Vec::new(), state: State::Flags }
    }

    /// Takes what the client says, in pieces of any size, and returns what to tell the server.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.pending.extend_from_slice(bytes);
        let mut out = Vec::new();
        while let Some(length) = self.next() {
            let piece: Vec<u8> = self.pending.drain(..length).collect();
            match self.state {
                State::Flags => self.state = State::Options,
                State::Options => {
                    let (option, last) = self.renamed(piece);
                    out.extend_from_slice(&option);
                    if last {
                        self.state = State::Passing;
                    }
                    continue;
                }
                State::Passing => {}
            }
            out.extend_from_slice(&piece);
        }
        out
    }

    /// The length of the next piece that is complete; never 0.
    fn next(&mut self) -> Option<usize> {
        let have = self.pending.len();
        match self.state {
            State::Flags => (have >= CLIENT_FLAGS).then_some(CLIENT_FLAGS),
            State::Passing => (have > 0).then_some(have),
            State::Options => {
                // What does not begin as an option is a request, or a TLS hello: the handshake is over, or cannot be read.
                let magic = option::OPTION.to_be_bytes();
                if !self.pending.iter().zip(magic).all(|(byte, magic)| *byte == magic) {
                    self.state = State::Passing;
                    return self.next();
                }
                let length: [u8; 4] = self.pending.get(12..OPTION_HEAD)?.try_into().ok()?;
                let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                if length > LONGEST {
                    self.state = State::Passing;
                    return self.next();
                }
                (have >= OPTION_HEAD + length).then_some(OPTION_HEAD + length)
            }
        }
    }

    /// An option with the name filled in where it was empty, and whether the handshake ends with it.
    fn renamed(&self, option: Vec<u8>) -> (Vec<u8>, bool) {
        let code = u32::from_be_bytes([option[8], option[9], option[10], option[11]]);
        let data = &option[OPTION_HEAD..];
        let renamed = match OptionCode::from_code(code) {
            Some(OptionCode::ExportName) if data.is_empty() => self.name.clone(),
            Some(OptionCode::Info | OptionCode::Go | OptionCode::ListMetaContext | OptionCode::SetMetaContext)
                if data.starts_with(&[0; 4]) =>
            {
                let length = u32::try_from(self.name.len()).expect("a name is short");
                [&length.to_be_bytes(), &self.name[..], &data[4..]].concat()
            }
            known => return (option, known == Some(OptionCode::ExportName)),
        };
        let length = u32::try_from(renamed.len()).expect("an option that is looked into is short");
        let whole = [&option[..12], &length.to_be_bytes(), &renamed].concat();
        (whole, code == OptionCode::ExportName.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nbd::client::{Handshake, Step, Wish};
    use crate::nbd::{Action, BlockSizes, Export, Negotiation, TlsPolicy};

    /// A client that asks for `asked` and a server, with `DefaultExport` between them that hears `piece` bytes at a time. Returns
    /// the name that the server was asked for.
    fn opened(asked: &str, piece: usize) -> String {
        let wish = Wish { export: asked.to_owned(), structured: true, extended: true, allocation: true, ..Wish::default() };
        let (mut client, mut server) = (Handshake::new(wish), Negotiation::new(TlsPolicy::Off));
        let mut between = DefaultExport::new("web/1");
        let mut opened = None;
        loop {
            match server.poll() {
                Action::Send(bytes) => client.feed(&bytes),
                Action::Open { name, .. } => {
                    let blocks = BlockSizes::default();
                    let (description, read_only) = (String::new(), false);
                    server.opened(Ok(Export { name: name.clone(), description, size: 4096, read_only, blocks }));
                    opened = Some(name);
                }
                Action::Receive => match client.poll() {
                    Step::Send(bytes) => bytes.chunks(piece).for_each(|bytes| server.feed(&between.pass(bytes))),
                    other => panic!("{other:?}"),
                },
                Action::Done { .. } => {
                    assert!(matches!(client.poll(), Step::Done(_)));
                    assert_eq!(between.pass(b"raw"), b"raw");
                    return opened.unwrap();
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn the_default_export_gets_its_name_and_others_keep_theirs() {
        for piece in [1, 3, 7, 1000] {
            assert_eq!(opened("", piece), "web/1");
            assert_eq!(opened("other", piece), "other");
        }
    }

    #[test]
    fn the_old_way_to_open_an_export_is_known_too() {
        let mut between = DefaultExport::new("web");
        let head = [&option::OPTION.to_be_bytes()[..], &1_u32.to_be_bytes(), &0_u32.to_be_bytes()].concat();
        assert_eq!(between.pass(&[0, 0, 0, 3]), [0, 0, 0, 3]);
        let out = between.pass(&head);
        assert_eq!((&out[12..16], &out[16..]), (&[0, 0, 0, 3][..], &b"web"[..]));
        // What looks like an option now is data.
        assert_eq!(between.pass(&head), head);
    }

    #[test]
    fn a_request_ends_the_handshake() {
        let mut between = DefaultExport::new("web");
        between.pass(&[0; 4]);
        assert_eq!(between.pass(&[0x25, 0x60, 0x95, 0x13]), [0x25, 0x60, 0x95, 0x13]);
        assert_eq!(between.pass(b"IHAVEOPT"), b"IHAVEOPT");
    }
}
