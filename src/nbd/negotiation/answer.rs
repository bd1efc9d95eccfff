//! Replies to options, encoded.

use super::Listed;
use super::data::ExportQuestion;
use crate::nbd::option::{self, OptionCode, info, reply as kind};
use crate::nbd::{Export, TransmissionFlags, clip};

/// Layout: magic (64 bits), the option, the reply's type, the length of its data (32 bits each), data.
pub(super) fn reply(out: &mut Vec<u8>, option: u32, kind: u32, data: &[&[u8]]) {
    let length: usize = data.iter().map(|part| part.len()).sum();
    let length = u32::try_from(length).expect("replies are made of a few strings of at most 4096 bytes");
    out.extend_from_slice(&option::REPLY.to_be_bytes());
    for field in [option, kind, length] {
        out.extend_from_slice(&field.to_be_bytes());
    }
    for part in data {
        out.extend_from_slice(part);
    }
}

pub(super) fn error(out: &mut Vec<u8>, option: u32, code: u32, text: &str) {
    reply(out, option, code, &[clip(text)]);
}

/// Layout: name (counted by 32 bits), description (the rest).
pub(super) fn server(out: &mut Vec<u8>, export: &Listed) {
    let name = clip(&export.name);
    let length = u32::try_from(name.len()).expect("clipped to 4096");
    reply(out, OptionCode::List.code(), kind::SERVER, &[&length.to_be_bytes(), name, clip(&export.description)]);
}

/// Layout: context id (32 bits), name (the rest).
pub(super) fn context(out: &mut Vec<u8>, option: OptionCode, id: u32, name: &str) {
    reply(out, option.code(), kind::META_CONTEXT, &[&id.to_be_bytes(), clip(name)]);
}

/// Size and flags, and what else was asked for. Layout of each: kind (16 bits) and its fields.
pub(super) fn informations(
    out: &mut Vec<u8>,
    option: OptionCode,
    question: &ExportQuestion,
    export: &Export,
    flags: TransmissionFlags,
) {
    let mut inform = |information: u16, fields: &[&[u8]]| {
        let information = information.to_be_bytes();
        let data: Vec<&[u8]> = std::iter::once(information.as_slice()).chain(fields.iter().copied()).collect();
        reply(out, option.code(), kind::INFO, &data);
    };
    inform(info::EXPORT, &[&export.size.to_be_bytes(), &flags.0.to_be_bytes()]);
    if question.wants_name {
        inform(info::NAME, &[clip(&export.name)]);
    }
    if question.wants_description && !export.description.is_empty() {
        inform(info::DESCRIPTION, &[clip(&export.description)]);
    }
    if question.wants_block_size {
        let blocks = export.blocks;
        let sizes = [blocks.minimum, blocks.preferred, blocks.payload].map(u32::to_be_bytes);
        inform(info::BLOCK_SIZE, &[&sizes[0], &sizes[1], &sizes[2]]);
    }
}
