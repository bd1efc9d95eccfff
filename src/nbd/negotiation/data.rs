//! The data of options, parsed.

use crate::nbd::MAX_STRING;
use crate::nbd::cursor::Cursor;
use crate::nbd::option::{self, info, reply};

/// INFO and GO: an export, and what is wanted about it besides size and flags.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ExportQuestion {
    pub(super) name: String,
    pub(super) wants_name: bool,
    pub(super) wants_description: bool,
    pub(super) wants_block_size: bool,
}

/// LIST_META_CONTEXT and SET_META_CONTEXT: an export, and whether the queries match `base:allocation`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MetaQuestion {
    pub(super) name: String,
    pub(super) allocation: bool,
}

/// What is wrong with an option's data.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    pub(super) code: u32,
    pub(super) text: &'static str,
}

impl Complaint {
    pub(super) fn invalid(text: &'static str) -> Self {
        Self { code: reply::ERR_INVALID, text }
    }
}

/// A string of the protocol: UTF-8, at most 4096 bytes, no NUL.
pub(super) fn text(bytes: &[u8]) -> Result<String, Complaint> {
    if bytes.len() > MAX_STRING {
        return Err(Complaint { code: reply::ERR_TOO_BIG, text: "strings have at most 4096 bytes" });
    }
    match str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text.to_owned()),
        Ok(_) => Err(Complaint::invalid("strings cannot contain NUL")),
        Err(_) => Err(Complaint::invalid("strings must be UTF-8")),
    }
}

/// Layout: name (counted by 32 bits), count (16 bits), kinds of information (16 bits each); nothing more.
pub(super) fn export_question(data: &[u8]) -> Result<ExportQuestion, Complaint> {
    let mut data = Cursor(data);
    let name = data.counted().ok_or(CUT_OFF)?;
    let count = data.u16().ok_or(CUT_OFF)?;
    if data.0.len() != usize::from(count) * 2 {
        return Err(Complaint::invalid("the number of information requests does not fit the option's length"));
    }
    let mut question = ExportQuestion { name: text(name)?, ..ExportQuestion::default() };
    while let Some(kind) = data.u16() {
        match kind {
            info::NAME => question.wants_name = true,
            info::DESCRIPTION => question.wants_description = true,
            info::BLOCK_SIZE => question.wants_block_size = true,
            // "The server MUST ignore any information requests it does not understand."
            _ => {}
        }
    }
    Ok(question)
}

/// Layout: name (counted by 32 bits), count (32 bits), queries (each counted by 32 bits); nothing more.
///
/// A list without queries means all; `base:` is a wildcard in a list and nothing in a selection.
pub(super) fn meta_question(data: &[u8], list: bool) -> Result<MetaQuestion, Complaint> {
    let mut data = Cursor(data);
    let name = text(data.counted().ok_or(CUT_OFF)?)?;
    let count = data.u32().ok_or(CUT_OFF)?;
    let mut allocation = list && count == 0;
    for _ in 0..count {
        // Bounded by the data's length: every query has at least the four bytes of its own.
        let query = text(data.counted().ok_or(CUT_OFF)?)?;
        allocation |= query == option::ALLOCATION || list && query == "base:";
    }
    match data.is_empty() {
        true => Ok(MetaQuestion { name, allocation }),
        false => Err(Complaint::invalid("the queries do not fill the option's length")),
    }
}

const CUT_OFF: Complaint = Complaint { code: reply::ERR_INVALID, text: "the option's data is cut off" };
