//! As much of Rust's lexical grammar as is needed to tell code from comments and strings.

/// One token of code. Comments and white space are gone; what a literal says is gone too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) kind: Kind,
    /// The text of an identifier or a punctuation mark; empty for literals.
    pub(crate) text: &'a str,
    /// Counted from 1.
    pub(crate) line: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A name or a keyword; `r#name` is the token `name`.
    Ident,
    /// `::`, or any other single character.
    Punct,
    /// A string, a character or a number.
    Literal,
    /// `'a`.
    Lifetime,
}

impl Token<'_> {
    pub(crate) fn is(&self, text: &str) -> bool {
        matches!(self.kind, Kind::Ident | Kind::Punct) && self.text == text
    }
}

/// Splits `source` into tokens. A source that ends inside a literal or a comment ends there.
pub(crate) fn lex(source: &str) -> Vec<Token<'_>> {
    let mut lexer = Lexer { source, at: 0, line: 1 };
    let mut tokens = Vec::new();
    while let Some(token) = lexer.token() {
        tokens.push(token);
    }
    tokens
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    line: usize,
}

impl<'a> Lexer<'a> {
    fn token(&mut self) -> Option<Token<'a>> {
        self.skip_blank();
        let (start, line) = (self.at, self.line);
        let first = self.peek(0)?;
        let kind = match first {
            '"' => self.string(),
            '\'' => self.quote(),
            'r' | 'b' | 'c' if self.literal_prefix().is_some() => self.prefixed(),
            c if c.is_alphabetic() || c == '_' => self.word(Kind::Ident),
            c if c.is_ascii_digit() => self.word(Kind::Literal),
            ':' if self.peek(1) == Some(':') => self.take(2, Kind::Punct),
            _ => self.take(1, Kind::Punct),
        };
        let text = match kind {
            Kind::Literal | Kind::Lifetime => "",
            Kind::Ident => self.source[start..self.at].trim_start_matches("r#"),
            Kind::Punct => &self.source[start..self.at],
        };
        Some(Token { kind, text, line })
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.source[self.at..].chars().nth(ahead)
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek(0)?;
        self.at += c.len_utf8();
        self.line += usize::from(c == '\n');
        Some(c)
    }

    fn take(&mut self, count: usize, kind: Kind) -> Kind {
        for _ in 0..count {
            self.bump();
        }
        kind
    }

    fn skip_blank(&mut self) {
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some(c), _) if c.is_whitespace() => {
                    self.bump();
                }
                (Some('/'), Some('/')) => while self.bump().is_some_and(|c| c != '\n') {},
                (Some('/'), Some('*')) => self.skip_block_comment(),
                _ => return,
            }
        }
    }

    fn skip_block_comment(&mut self) {
        let mut depth = 0;
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some('/'), Some('*')) => {
                    self.take(2, Kind::Punct);
                    depth += 1;
                }
                (Some('*'), Some('/')) => {
                    self.take(2, Kind::Punct);
                    depth -= 1;
                    if depth == 0 {
                        return;
                    }
                }
                (Some(_), _) => {
                    self.bump();
                }
                (None, _) => return,
            }
        }
    }

    fn word(&mut self, kind: Kind) -> Kind {
        while self.peek(0).is_some_and(|c| c.is_alphanumeric() || c == '_') {
            self.bump();
        }
        kind
    }

    /// A literal with backslash escapes, from its opening `"` on.
    fn string(&mut self) -> Kind {
        self.bump();
        while let Some(c) = self.bump() {
            match c {
                '\\' => drop(self.bump()),
                '"' => break,
                _ => {}
            }
        }
        Kind::Literal
    }

    /// A character or a lifetime: `'a'` and `'\n'` against `'a`.
    fn quote(&mut self) -> Kind {
        self.bump();
        if self.peek(0) == Some('\\') {
            self.take(2, Kind::Literal);
            while self.bump().is_some_and(|c| c != '\'') {}
            return Kind::Literal;
        }
        if self.peek(1) == Some('\'') { self.take(2, Kind::Literal) } else { self.word(Kind::Lifetime) }
    }

    /// How many characters stand before the quote of `b"`, `r#"`, `br"`, `c"`, `b'` or before the name of `r#name`; `None` for a
    /// plain identifier.
    fn literal_prefix(&self) -> Option<usize> {
        let letters = (0..2).take_while(|&n| self.peek(n).is_some_and(|c| matches!(c, 'r' | 'b' | 'c'))).count();
        let hashes = (letters..).take_while(|&n| self.peek(n) == Some('#')).count();
        let raw = self.source[self.at..self.at + letters].contains('r');
        match self.peek(letters + hashes) {
            Some('"') if raw || hashes == 0 => Some(letters + hashes),
            Some('\'') if letters == 1 && hashes == 0 && self.peek(0) == Some('b') => Some(1),
            Some(c) if raw && letters == 1 && hashes == 1 && (c.is_alphabetic() || c == '_') => Some(2),
            _ => None,
        }
    }

    fn prefixed(&mut self) -> Kind {
        let count = self.literal_prefix().unwrap_or(0);
        let prefix = &self.source[self.at..self.at + count];
        self.take(count, Kind::Literal);
        match self.peek(0) {
            Some('"') if prefix.contains('r') => self.raw_string(prefix.matches('#').count()),
            Some('"') => self.string(),
            Some('\'') => self.quote(),
            _ => self.word(Kind::Ident),
        }
    }

    fn raw_string(&mut self, hashes: usize) -> Kind {
        let end = format!("\"{}", "#".repeat(hashes));
        self.bump();
        while !self.source[self.at..].starts_with(&end) && self.bump().is_some() {}
        self.take(end.len(), Kind::Literal)
    }
}

#[test]
fn comments_and_strings_leave_no_names() {
    let source = r####"
        // tokio::spawn
        /* std::fs /* nested */ rand */
        let s = "std::net \" unsafe"; let r = r#"unsafe " tokio"#; let b = b"rand"; let c = 'u'; let q = '\''; let br = br"\";
        let l: &'static str = x;
        done
    "####;
    let names: Vec<&str> = lex(source).iter().filter(|t| t.kind == Kind::Ident).map(|t| t.text).collect();
    assert_eq!(names, ["let", "s", "let", "r", "let", "b", "let", "c", "let", "q", "let", "br", "let", "l", "str", "x", "done"]);
}

#[test]
fn code_between_literals_is_seen() {
    let source = "f(b'\\'', 'x', unsafe { r#type }, 1_u8, \"\\\\\", tokio::x)";
    let names: Vec<&str> = lex(source).iter().filter(|t| t.kind == Kind::Ident).map(|t| t.text).collect();
    assert_eq!(names, ["f", "unsafe", "type", "tokio", "x"]);
}

#[test]
fn lines_are_counted_through_literals_and_comments() {
    let tokens = lex("a\n/* \n */ b \"\n\n\" c");
    assert_eq!(tokens.iter().map(|t| t.line).collect::<Vec<_>>(), [1, 3, 3, 5]);
}
