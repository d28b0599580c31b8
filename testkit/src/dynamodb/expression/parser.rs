//! The grammar of expressions.
//!
//! By descent, one function a rule, from the loosest binding to the tightest: OR, AND, NOT, and then
//! comparisons, functions and parentheses. Nesting is bounded, so that no text can exhaust the stack.

use super::super::refusal::Refusal;
use super::super::value::AttributeValue;
use super::condition::{Comparator, Condition, Operand, order};
use super::lexer::{Placed, Token, syntax_error, tokens};
use super::path::{Path, Step};
use super::placeholders::Placeholders;
use super::reserved::is_reserved;
use super::update::{SetOperand, SetValue, Update};

/// Longest expression, in bytes.
const MAX_BYTES: usize = 4096;
/// Most parentheses and functions within each other.
const MAX_NESTING: usize = 100;
/// Most operators of one expression.
const MAX_OPERATORS: usize = 300;
/// Most operands of one IN.
const MAX_IN: usize = 100;

const TYPES: [&str; 10] = ["B", "NULL", "SS", "BOOL", "L", "BS", "N", "NS", "S", "M"];

pub(super) struct Parser<'a> {
    kind: &'a str,
    text: &'a str,
    tokens: Vec<Placed>,
    at: usize,
    nesting: usize,
    operators: usize,
    placeholders: &'a mut Placeholders,
}

impl<'a> Parser<'a> {
    pub(super) fn new(
        kind: &'a str,
        text: &'a str,
        placeholders: &'a mut Placeholders,
    ) -> Result<Self, Refusal> {
        if text.len() > MAX_BYTES {
            return Err(Refusal::validation(format!(
                "Invalid {kind}: Expression size has exceeded the maximum allowed size; expression \
                 size: {}",
                text.len()
            )));
        }
        let tokens = tokens(kind, text)?;
        if tokens.is_empty() {
            return Err(Refusal::validation(format!(
                "Invalid {kind}: The expression can not be empty;"
            )));
        }
        Ok(Self { kind, text, tokens, at: 0, nesting: 0, operators: 0, placeholders })
    }

    /// Refuses what follows a whole expression.
    pub(super) fn end(&self) -> Result<(), Refusal> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.unexpected()),
        }
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(token, _)| token)
    }

    fn unexpected(&self) -> Refusal {
        let end = self.text.len();
        let place = self.tokens.get(self.at).map(|(_, place)| place.clone());
        syntax_error(self.kind, self.text, place.unwrap_or(end..end))
    }

    fn invalid(&self, problem: impl std::fmt::Display) -> Refusal {
        Refusal::validation(format!("Invalid {}: {problem}", self.kind))
    }

    fn is_symbol(&self, symbol: &str) -> bool {
        matches!(self.peek(), Some(Token::Symbol(found)) if *found == symbol)
    }

    /// Takes this symbol if it comes next.
    fn take(&mut self, symbol: &str) -> bool {
        let found = self.is_symbol(symbol);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, symbol: &str) -> Result<(), Refusal> {
        if self.take(symbol) {
            return Ok(());
        }
        Err(self.unexpected())
    }

    fn is_keyword(&self, keyword: &str) -> bool {
        matches!(self.peek(), Some(Token::Word(word)) if word.eq_ignore_ascii_case(keyword))
    }

    fn take_keyword(&mut self, keyword: &str) -> bool {
        let found = self.is_keyword(keyword);
        self.at += usize::from(found);
        found
    }

    /// The name of a function whose call comes next.
    fn function(&self) -> Option<String> {
        let (Some(Token::Word(name)), Some((Token::Symbol("("), _))) =
            (self.peek(), self.tokens.get(self.at + 1))
        else {
            return None;
        };
        Some(name.clone())
    }

    fn nested<T>(
        &mut self,
        inner: impl FnOnce(&mut Self) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            return Err(self.invalid("The expression has too many levels of nesting"));
        }
        let result = inner(self);
        self.nesting -= 1;
        result
    }

    fn count_operator(&mut self) -> Result<(), Refusal> {
        self.operators += 1;
        if self.operators > MAX_OPERATORS {
            return Err(self.invalid(format_args!(
                "The expression contains too many operators; operator count: {}",
                self.operators
            )));
        }
        Ok(())
    }

    pub(super) fn condition(&mut self) -> Result<Condition, Refusal> {
        let mut condition = self.conjunction()?;
        while self.take_keyword("OR") {
            self.count_operator()?;
            let right = self.conjunction()?;
            condition = Condition::Or(Box::new(condition), Box::new(right));
        }
        Ok(condition)
    }

    fn conjunction(&mut self) -> Result<Condition, Refusal> {
        let mut condition = self.negation()?;
        while self.take_keyword("AND") {
            self.count_operator()?;
            let right = self.negation()?;
            condition = Condition::And(Box::new(condition), Box::new(right));
        }
        Ok(condition)
    }

    fn negation(&mut self) -> Result<Condition, Refusal> {
        if self.take_keyword("NOT") {
            self.count_operator()?;
            let condition = self.nested(Self::negation)?;
            return Ok(Condition::Not(Box::new(condition)));
        }
        self.primary()
    }

    fn primary(&mut self) -> Result<Condition, Refusal> {
        if self.is_symbol("(") && !self.encloses_an_operand() {
            return self.nested(|parser| {
                parser.expect("(")?;
                let condition = parser.condition()?;
                parser.expect(")")?;
                Ok(condition)
            });
        }
        match self.function().as_deref() {
            Some("size") | None => self.comparison(),
            Some(name) => self.predicate(name),
        }
    }

    /// Whether the parenthesis that comes next is around an operand: a comparison follows it.
    fn encloses_an_operand(&self) -> bool {
        let mut depth = 0_usize;
        let close = self.tokens[self.at..].iter().position(|(token, _)| {
            match token {
                Token::Symbol("(") => depth += 1,
                Token::Symbol(")") => depth -= 1,
                _ => {}
            }
            depth == 0
        });
        let after = close.and_then(|close| self.tokens.get(self.at + close + 1));
        match after {
            Some((Token::Symbol(symbol), _)) => !matches!(*symbol, ")" | ","),
            Some((Token::Word(word), _)) => {
                word.eq_ignore_ascii_case("BETWEEN") || word.eq_ignore_ascii_case("IN")
            }
            _ => false,
        }
    }

    /// A function that is a condition of its own.
    fn predicate(&mut self, name: &str) -> Result<Condition, Refusal> {
        let arity = match name {
            "attribute_exists" | "attribute_not_exists" => 1,
            "attribute_type" | "begins_with" | "contains" => 2,
            "if_not_exists" | "list_append" => {
                return Err(self.invalid(format_args!(
                    "The function is not allowed in a condition expression; function: {name}"
                )));
            }
            _ => {
                return Err(self.invalid(format_args!("Invalid function name; function: {name}")));
            }
        };
        let mut operands = self.arguments(name, arity)?.into_iter();
        let (first, second) = (operands.next(), operands.next());
        let path = |parser: &Self, operand| match operand {
            Some(Operand::Path(path)) => Ok(path),
            _ => Err(parser.invalid(format_args!(
                "Operator or function requires a document path; operator or function: {name}"
            ))),
        };
        Ok(match (name, first, second) {
            ("attribute_exists", first, _) => Condition::Exists(path(self, first)?),
            ("attribute_not_exists", first, _) => Condition::NotExists(path(self, first)?),
            ("attribute_type", first, Some(Operand::Value(AttributeValue::S(kind)))) => {
                if !TYPES.contains(&kind.as_str()) {
                    return Err(self.invalid(format_args!(
                        "Invalid attribute type name found; type: {kind}, valid types: {{{}}}",
                        TYPES.join(",")
                    )));
                }
                Condition::IsType(path(self, first)?, kind)
            }
            ("begins_with", Some(value), Some(prefix)) => {
                self.check_type(name, &prefix, &["S", "B"])?;
                self.check_type(name, &value, &["S", "B"])?;
                Condition::BeginsWith(value, prefix)
            }
            ("contains", Some(value), Some(part)) => Condition::Contains(value, part),
            _ => {
                return Err(self.invalid(format_args!(
                    "Incorrect operand type for operator or function; operator or function: {name}"
                )));
            }
        })
    }

    fn arguments(&mut self, name: &str, arity: usize) -> Result<Vec<Operand>, Refusal> {
        // The name and the parenthesis, which `function` has seen.
        self.at += 2;
        let mut operands = vec![self.nested(Self::operand)?];
        while self.take(",") {
            operands.push(self.nested(Self::operand)?);
        }
        self.expect(")")?;
        if operands.len() != arity {
            return Err(self.invalid(format_args!(
                "Incorrect number of operands for operator or function; operator or function: \
                 {name}, number of operands: {}",
                operands.len()
            )));
        }
        Ok(operands)
    }

    /// A value that is given must be of one of these types.
    fn check_type(&self, name: &str, operand: &Operand, types: &[&str]) -> Result<(), Refusal> {
        match operand {
            Operand::Value(value) if !types.contains(&value.type_name()) => {
                Err(self.invalid(format_args!(
                    "Incorrect operand type for operator or function; operator or function: {name}, \
                     operand type: {}",
                    value.type_name()
                )))
            }
            _ => Ok(()),
        }
    }

    fn comparison(&mut self) -> Result<Condition, Refusal> {
        let left = self.operand()?;
        if self.take_keyword("BETWEEN") {
            self.count_operator()?;
            let low = self.operand()?;
            if !self.take_keyword("AND") {
                return Err(self.unexpected());
            }
            let high = self.operand()?;
            self.check_bounds(&low, &high)?;
            for operand in [&left, &low, &high] {
                self.check_type("BETWEEN", operand, &["S", "N", "B"])?;
            }
            return Ok(Condition::Between(left, low, high));
        }
        if self.take_keyword("IN") {
            self.count_operator()?;
            self.expect("(")?;
            let mut list = vec![self.operand()?];
            while self.take(",") {
                list.push(self.operand()?);
            }
            self.expect(")")?;
            if list.len() > MAX_IN {
                return Err(self.invalid(format_args!(
                    "The IN operator is provided with too many operands; number of operands: {}",
                    list.len()
                )));
            }
            return Ok(Condition::In(left, list));
        }
        let (comparator, name) = match self.peek() {
            Some(Token::Symbol("=")) => (Comparator::Equal, "="),
            Some(Token::Symbol("<>")) => (Comparator::NotEqual, "<>"),
            Some(Token::Symbol("<")) => (Comparator::Less, "<"),
            Some(Token::Symbol("<=")) => (Comparator::LessOrEqual, "<="),
            Some(Token::Symbol(">")) => (Comparator::Greater, ">"),
            Some(Token::Symbol(">=")) => (Comparator::GreaterOrEqual, ">="),
            _ => return Err(self.unexpected()),
        };
        self.at += 1;
        self.count_operator()?;
        let right = self.operand()?;
        if !matches!(comparator, Comparator::Equal | Comparator::NotEqual) {
            for operand in [&left, &right] {
                self.check_type(name, operand, &["S", "N", "B"])?;
            }
        }
        if left == right && matches!(left, Operand::Path(_)) {
            return Err(self.invalid(format_args!(
                "The first operand must be distinct from the remaining operands for this operator \
                 or function; operator: {name}, first operand: {}",
                match &left {
                    Operand::Path(path) => path.to_string(),
                    _ => String::new(),
                }
            )));
        }
        Ok(Condition::Compare(left, comparator, right))
    }

    fn check_bounds(&self, low: &Operand, high: &Operand) -> Result<(), Refusal> {
        let (Operand::Value(low), Operand::Value(high)) = (low, high) else {
            return Ok(());
        };
        let problem = if low.type_name() != high.type_name() {
            "The BETWEEN operator requires same data type for lower and upper bounds"
        } else if order(low, high).is_some_and(std::cmp::Ordering::is_gt) {
            "The BETWEEN operator requires upper bound to be greater than or equal to lower bound"
        } else {
            return Ok(());
        };
        let shown = |value: &AttributeValue| {
            let json = value.to_json();
            let inner = json[value.type_name()].as_str().unwrap_or_default().to_owned();
            format!("AttributeValue: {{{}:{inner}}}", value.type_name())
        };
        Err(self.invalid(format_args!(
            "{problem}; lower bound operand: {}, upper bound operand: {}",
            shown(low),
            shown(high)
        )))
    }

    fn operand(&mut self) -> Result<Operand, Refusal> {
        if let Some(name) = self.function() {
            if name != "size" {
                let problem = match name.as_str() {
                    "attribute_exists"
                    | "attribute_not_exists"
                    | "attribute_type"
                    | "begins_with"
                    | "contains" => {
                        "The function is not allowed to be used this way in an expression"
                    }
                    "if_not_exists" | "list_append" => {
                        "The function is not allowed in a condition expression"
                    }
                    _ => "Invalid function name",
                };
                return Err(self.invalid(format_args!("{problem}; function: {name}")));
            }
            let operand = self.arguments(&name, 1)?.pop();
            return match operand {
                Some(Operand::Size(_)) => Err(self.invalid(
                    "The function is not allowed to be used this way in an expression; function: \
                     size",
                )),
                Some(operand) => {
                    self.check_type(&name, &operand, &["S", "B", "SS", "NS", "BS", "L", "M"])?;
                    Ok(Operand::Size(Box::new(operand)))
                }
                None => Err(self.unexpected()),
            };
        }
        if self.take("(") {
            let operand = self.nested(Self::operand)?;
            self.expect(")")?;
            return Ok(operand);
        }
        match self.value()? {
            Some(value) => Ok(Operand::Value(value)),
            None => Ok(Operand::Path(self.path()?)),
        }
    }

    /// A value's placeholder, if one comes next.
    fn value(&mut self) -> Result<Option<AttributeValue>, Refusal> {
        let Some((Token::Value(key), _)) = self.tokens.get(self.at) else {
            return Ok(None);
        };
        let value = self.placeholders.value(self.kind, key)?;
        self.at += 1;
        Ok(Some(value))
    }

    pub(super) fn paths(&mut self) -> Result<Vec<Path>, Refusal> {
        let mut paths = vec![self.path()?];
        while self.take(",") {
            paths.push(self.path()?);
        }
        Ok(paths)
    }

    fn path(&mut self) -> Result<Path, Refusal> {
        let mut path = Path::of(self.name()?);
        loop {
            if self.take(".") {
                path.steps.push(Step::Name(self.name()?));
            } else if self.take("[") {
                let Some(Token::Index(index)) = self.peek() else {
                    return Err(self.unexpected());
                };
                path.steps.push(Step::Index(*index));
                self.at += 1;
                self.expect("]")?;
            } else {
                return Ok(path);
            }
        }
    }

    fn name(&mut self) -> Result<String, Refusal> {
        let name = match self.tokens.get(self.at) {
            Some((Token::Name(key), _)) => self.placeholders.name(self.kind, key)?,
            Some((Token::Word(word), _)) if is_reserved(word) => {
                return Err(self.invalid(format_args!(
                    "Attribute name is a reserved keyword; reserved keyword: {word}"
                )));
            }
            Some((Token::Word(word), _)) => word.clone(),
            _ => return Err(self.unexpected()),
        };
        self.at += 1;
        Ok(name)
    }

    pub(super) fn update(&mut self) -> Result<Update, Refusal> {
        let mut update = Update::default();
        let mut seen = Vec::new();
        while self.peek().is_some() {
            let sections = ["SET", "REMOVE", "ADD", "DELETE"];
            let section = sections.into_iter().find(|section| self.take_keyword(section));
            let section = section.ok_or_else(|| self.unexpected())?;
            if seen.contains(&section) {
                return Err(self.invalid(format_args!(
                    "The \"{section}\" section can only be used once in an update expression;"
                )));
            }
            seen.push(section);
            loop {
                let path = self.path()?;
                match section {
                    "SET" => {
                        self.expect("=")?;
                        let value = self.set_value()?;
                        update.set.push((path, value));
                    }
                    "REMOVE" => update.remove.push(path),
                    section => {
                        let value = self.value()?.ok_or_else(|| self.unexpected())?;
                        let types: &[&str] = match section {
                            "ADD" => &["N", "SS", "NS", "BS"],
                            _ => &["SS", "NS", "BS"],
                        };
                        if !types.contains(&value.type_name()) {
                            return Err(self.invalid(format_args!(
                                "Incorrect operand type for operator or function; operator: \
                                 {section}, operand type: {}",
                                long_name(&value)
                            )));
                        }
                        match section {
                            "ADD" => update.add.push((path, value)),
                            _ => update.delete.push((path, value)),
                        }
                    }
                }
                if !self.take(",") {
                    break;
                }
            }
        }
        Ok(update)
    }

    fn set_value(&mut self) -> Result<SetValue, Refusal> {
        if self.is_symbol("(") {
            // Parentheses around the whole.
            return self.nested(|parser| {
                parser.expect("(")?;
                let value = parser.set_value()?;
                parser.expect(")")?;
                Ok(value)
            });
        }
        let left = self.set_operand()?;
        let sum = match self.peek() {
            Some(Token::Symbol("+")) => true,
            Some(Token::Symbol("-")) => false,
            _ => return Ok(SetValue::Operand(left)),
        };
        self.at += 1;
        self.count_operator()?;
        let right = self.set_operand()?;
        for operand in [&left, &right] {
            if let SetOperand::Value(value) = operand
                && value.type_name() != "N"
            {
                return Err(self.invalid(format_args!(
                    "Incorrect operand type for operator or function; operator or function: {}, \
                     operand type: {}",
                    if sum { "+" } else { "-" },
                    value.type_name()
                )));
            }
        }
        Ok(match sum {
            true => SetValue::Sum(left, right),
            false => SetValue::Difference(left, right),
        })
    }

    fn set_operand(&mut self) -> Result<SetOperand, Refusal> {
        let Some(name) = self.function() else {
            return match self.value()? {
                Some(value) => Ok(SetOperand::Value(value)),
                None => Ok(SetOperand::Path(self.path()?)),
            };
        };
        self.at += 2;
        let function = self.nested(|parser| match name.as_str() {
            "if_not_exists" => {
                let path = parser.path()?;
                parser.expect(",")?;
                let otherwise = parser.set_operand()?;
                Ok(SetOperand::IfNotExists(path, Box::new(otherwise)))
            }
            "list_append" => {
                let first = parser.set_operand()?;
                parser.expect(",")?;
                let second = parser.set_operand()?;
                for operand in [&first, &second] {
                    if let SetOperand::Value(value) = operand
                        && value.type_name() != "L"
                    {
                        return Err(parser.invalid(format_args!(
                            "Incorrect operand type for operator or function; operator or \
                             function: list_append, operand type: {}",
                            value.type_name()
                        )));
                    }
                }
                Ok(SetOperand::ListAppend(Box::new(first), Box::new(second)))
            }
            "attribute_exists"
            | "attribute_not_exists"
            | "attribute_type"
            | "begins_with"
            | "contains"
            | "size" => Err(parser.invalid(format_args!(
                "The function is not allowed in an update expression; function: {name}"
            ))),
            _ => Err(parser.invalid(format_args!("Invalid function name; function: {name}"))),
        })?;
        self.expect(")")?;
        Ok(function)
    }
}

/// The type as the refusals of ADD and DELETE write it.
fn long_name(value: &AttributeValue) -> &'static str {
    match value {
        AttributeValue::S(_) => "STRING",
        AttributeValue::N(_) => "NUMBER",
        AttributeValue::B(_) => "BINARY",
        AttributeValue::Bool(_) => "BOOLEAN",
        AttributeValue::Null => "NULL",
        AttributeValue::Ss(_) | AttributeValue::Ns(_) | AttributeValue::Bs(_) => "SET",
        AttributeValue::L(_) => "LIST",
        AttributeValue::M(_) => "MAP",
    }
}
