//! What comes from the client.

use super::data::{self, Complaint};
use super::{CloseReason, Negotiation, Question, State, Then, TlsPolicy, answer};
use crate::nbd::option::{self, OptionCode, reply};
use crate::nbd::{MAX_STRING, flags};

/// Each method answers whether it got anywhere, or needs more bytes first.
impl Negotiation {
    pub(super) fn client_flags(&mut self) -> bool {
        let Some(bytes) = self.inbox.take() else { return false };
        let asked = u32::from_be_bytes(bytes);
        let known = flags::CLIENT_FIXED_NEWSTYLE | flags::CLIENT_NO_ZEROES;
        self.fixed = asked & flags::CLIENT_FIXED_NEWSTYLE != 0;
        self.no_zeroes = asked & flags::CLIENT_NO_ZEROES != 0;
        match asked & !known {
            0 => self.state = State::Option,
            unknown => self.close(CloseReason::UnknownFlags(unknown)),
        }
        true
    }

    pub(super) fn header(&mut self) -> bool {
        // The magic is looked at alone: whoever speaks another protocol may be waiting for an answer to less than a header.
        let Some(magic) = self.inbox.peek().first_chunk().copied().map(u64::from_be_bytes) else { return false };
        if magic != option::OPTION {
            self.close(CloseReason::NotAnOption(magic));
            return true;
        }
        let Some(header) = self.inbox.take::<16>() else { return false };
        let [.., c0, c1, c2, c3, l0, l1, l2, l3] = header;
        let (code, length) = (u32::from_be_bytes([c0, c1, c2, c3]), u32::from_be_bytes([l0, l1, l2, l3]));
        match (usize::try_from(length), OptionCode::from_code(code)) {
            (Ok(size), option) if length <= MAX_SKIPPED => self.judge(code, option, size),
            _ => self.close(CloseReason::TooLong { option: code, length }),
        }
        true
    }

    /// Decides by its header whether an option's data is wanted.
    fn judge(&mut self, code: u32, option: Option<OptionCode>, length: usize) {
        use OptionCode as O;
        let must_have_tls = self.tls == TlsPolicy::Required && !self.secured;
        let then = match option {
            Some(O::ExportName) => return self.judge_export_name(length, must_have_tls),
            _ if !self.fixed => return self.close(CloseReason::NotFixed(code)),
            Some(O::Abort) => Then::Act(O::Abort),
            Some(O::StartTls) if length == 0 => Then::Act(O::StartTls),
            Some(O::StartTls) => Then::Refuse(reply::ERR_INVALID, "STARTTLS takes no data"),
            _ if must_have_tls => Then::Refuse(reply::ERR_TLS_REQD, "this server talks to clients with TLS only"),
            None => Then::Refuse(reply::ERR_UNSUP, "this option is not known here"),
            Some(option @ (O::Info | O::Go | O::ListMetaContext | O::SetMetaContext)) => {
                if option == O::SetMetaContext {
                    // It replaces what was selected before even when it fails.
                    self.agreed.selected = None;
                }
                if length <= MAX_DATA {
                    self.state = State::Data { option, length };
                    return;
                }
                Then::Refuse(reply::ERR_TOO_BIG, "the option has too much data")
            }
            Some(_) if length > 0 => Then::Refuse(reply::ERR_INVALID, "this option takes no data"),
            Some(option) => Then::Act(option),
        };
        self.state = State::Skip { left: length, option: code, then };
    }

    /// EXPORT_NAME has no error reply: whatever is wrong closes the connection.
    fn judge_export_name(&mut self, length: usize, must_have_tls: bool) {
        let refused = match () {
            () if must_have_tls => "this server talks to clients with TLS only",
            () if self.agreed.extended => "it cannot follow EXTENDED_HEADERS",
            () if length > MAX_STRING => "the name is too long",
            () => {
                self.state = State::Data { option: OptionCode::ExportName, length };
                return;
            }
        };
        self.close(CloseReason::Refused(refused.to_owned()));
    }

    pub(super) fn skip(&mut self, left: usize, option: u32, then: Then) -> bool {
        let left = left - self.inbox.skip(left);
        if left > 0 {
            self.state = State::Skip { left, option, then };
            return false;
        }
        self.state = State::Option;
        match then {
            Then::Refuse(code, text) => answer::error(&mut self.outbox, option, code, text),
            Then::Act(option) => self.act(option),
        }
        true
    }

    /// An option without data.
    fn act(&mut self, option: OptionCode) {
        match option {
            OptionCode::Abort => {
                self.acknowledge(option);
                self.close(CloseReason::Aborted);
            }
            OptionCode::StartTls => self.start_tls(),
            OptionCode::List => self.state = State::Asked(Question::List),
            OptionCode::StructuredReply if self.agreed.extended => {
                let refusal = (reply::ERR_EXT_HEADER_REQD, "extended headers are agreed on already");
                answer::error(&mut self.outbox, option.code(), refusal.0, refusal.1);
            }
            OptionCode::StructuredReply => {
                self.agreed.structured = true;
                self.acknowledge(option);
            }
            OptionCode::ExtendedHeaders => {
                self.agreed.structured = true;
                self.agreed.extended = true;
                self.acknowledge(option);
            }
            OptionCode::ExportName
            | OptionCode::Info
            | OptionCode::Go
            | OptionCode::ListMetaContext
            | OptionCode::SetMetaContext => unreachable!("options with data are not skipped"),
        }
    }

    fn start_tls(&mut self) {
        let refusal = match self.tls {
            _ if self.secured => (reply::ERR_INVALID, "the connection has TLS already"),
            TlsPolicy::Off => (reply::ERR_POLICY, "TLS is not set up here"),
            // A man in the middle may have put options of his own behind STARTTLS, to be obeyed as if they had come encrypted.
            _ if !self.inbox.peek().is_empty() => return self.close(CloseReason::PlainTextAfterStartTls),
            TlsPolicy::Offered | TlsPolicy::Required => {
                self.acknowledge(OptionCode::StartTls);
                self.state = State::Securing;
                return;
            }
        };
        answer::error(&mut self.outbox, OptionCode::StartTls.code(), refusal.0, refusal.1);
    }

    pub(super) fn data(&mut self, option: OptionCode, length: usize) -> bool {
        let Some(data) = self.inbox.front(length) else { return false };
        let question = match option {
            OptionCode::ExportName => data::text(data).map(Question::ExportName),
            OptionCode::ListMetaContext => data::meta_question(data, true).map(|meta| Question::Meta(option, meta)),
            OptionCode::SetMetaContext if !self.agreed.structured => Err(Complaint::invalid("ask for structured replies first")),
            OptionCode::SetMetaContext => data::meta_question(data, false).map(|meta| Question::Meta(option, meta)),
            _ => data::export_question(data).map(|export| Question::Export(option, export)),
        };
        self.inbox.skip(length);
        match question {
            Ok(question) => self.state = State::Asked(question),
            Err(complaint) if option == OptionCode::ExportName => {
                self.close(CloseReason::Refused(complaint.text.to_owned()));
            }
            Err(complaint) => {
                self.state = State::Option;
                answer::error(&mut self.outbox, option.code(), complaint.code, complaint.text);
            }
        }
        true
    }
}

/// The longest data of an option that is looked at. A GO of a name of 4096 bytes that asks for 65535 informations has 132 KiB.
pub(super) const MAX_DATA: usize = 256 << 10;

/// The longest data that is skipped, for an answer instead of a closed connection. It takes no memory.
const MAX_SKIPPED: u32 = 32 << 20;
