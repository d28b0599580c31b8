//! Tokens of an expression.

use super::super::refusal::Refusal;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// A name, keyword or function.
    Word(String),
    /// `#name`, with its mark.
    Name(String),
    /// `:value`, with its mark.
    Value(String),
    Index(usize),
    Symbol(&'static str),
}

/// A token, and where it stands in the text, in bytes.
pub(super) type Placed = (Token, std::ops::Range<usize>);

/// Longer ones first.
const SYMBOLS: [&str; 15] =
    ["<>", "<=", ">=", "=", "<", ">", "(", ")", "[", "]", ",", ".", "+", "-", "/"];

/// Cuts a text into tokens. `kind` is the parameter that it was given in.
pub(super) fn tokens(kind: &str, text: &str) -> Result<Vec<Placed>, Refusal> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(char) = text[at..].chars().next() {
        let rest = &text[at..];
        let (token, length) = match char {
            _ if char.is_whitespace() => {
                at += char.len_utf8();
                continue;
            }
            'a'..='z' | 'A'..='Z' | '_' => {
                let word = word(rest);
                (Token::Word(word.to_owned()), word.len())
            }
            '#' | ':' => {
                let length = 1 + word(&rest[1..]).len();
                let name = rest[..length].to_owned();
                let token = match char {
                    _ if length == 1 => return Err(syntax_error(kind, text, at..at + 1)),
                    '#' => Token::Name(name),
                    _ => Token::Value(name),
                };
                (token, length)
            }
            '0'..='9' => {
                let length = rest.find(|char: char| !char.is_ascii_digit()).unwrap_or(rest.len());
                let index = rest[..length].parse();
                let index = index.map_err(|_| syntax_error(kind, text, at..at + length))?;
                (Token::Index(index), length)
            }
            _ => {
                let symbol = SYMBOLS.into_iter().find(|symbol| rest.starts_with(symbol));
                let symbol =
                    symbol.ok_or_else(|| syntax_error(kind, text, at..at + char.len_utf8()))?;
                (Token::Symbol(symbol), symbol.len())
            }
        };
        tokens.push((token, at..at + length));
        at += length;
    }
    Ok(tokens)
}

fn word(text: &str) -> &str {
    let end = text.find(|char: char| !char.is_ascii_alphanumeric() && char != '_');
    &text[..end.unwrap_or(text.len())]
}

/// The refusal of the token at `place`; an empty place is the end of the text.
pub(super) fn syntax_error(kind: &str, text: &str, place: std::ops::Range<usize>) -> Refusal {
    let token = text.get(place.clone()).filter(|token| !token.is_empty());
    let near = text[..place.start].trim_end();
    let from = near
        .rfind(char::is_whitespace)
        .map_or(0, |at| at + near[at..].chars().next().map_or(1, char::len_utf8));
    let near = text[from..].chars().take(20).collect::<String>();
    Refusal::validation(format!(
        "Invalid {kind}: Syntax error; token: {}, near: \"{near}\"",
        token.map_or("<EOF>".to_owned(), |token| format!("\"{token}\""))
    ))
}
