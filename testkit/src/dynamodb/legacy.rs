//! The parameters that came before expressions, turned into the trees of expressions: the Java KCL
//! still writes its leases by them.

use serde_json::Value;

use super::expression::{
    Comparator, Condition, Operand, Path, Projection, SetOperand, SetValue, Update,
};
use super::refusal::Refusal;
use super::request::Request;
use super::value::{AttributeValue, text};

/// Refuses a request that has parameters of both kinds.
pub(super) fn check_one_kind(
    request: Request<'_>,
    legacy: &[&str],
    expressions: &[&str],
) -> Result<(), Refusal> {
    let given = |members: &[&str]| {
        let given = members.iter().filter(|member| request.has(member));
        given.copied().collect::<Vec<_>>().join(", ")
    };
    let (legacy, expressions) = (given(legacy), given(expressions));
    if legacy.is_empty() || expressions.is_empty() {
        return Ok(());
    }
    Err(Refusal::validation(format!(
        "Can not use both expression and non-expression parameters in the same request: \
         Non-expression parameters: {{{legacy}}} Expression parameters: {{{expressions}}}"
    )))
}

/// The condition of `Expected`, `QueryFilter` or `ScanFilter`, if the request has one.
pub(super) fn condition(request: Request<'_>, member: &str) -> Result<Option<Condition>, Refusal> {
    let operator = request.choice("ConditionalOperator", &["AND", "OR"])?;
    let Some(conditions) = request.object(member)? else {
        if request.has("ConditionalOperator") {
            return Err(Refusal::validation(format!(
                "ConditionalOperator cannot be used without Filter or Expected; {member} is missing"
            )));
        }
        return Ok(None);
    };
    let mut joined = None;
    for (name, json) in conditions {
        let single = single(name, Request::within(member, json)?, member == "Expected")?;
        joined = Some(match (joined, operator) {
            (None, _) => single,
            (Some(before), "OR") => Condition::Or(Box::new(before), Box::new(single)),
            (Some(before), _) => Condition::And(Box::new(before), Box::new(single)),
        });
    }
    Ok(joined)
}

/// The condition of `KeyConditions`.
pub(super) fn key_condition(request: Request<'_>) -> Result<Option<Condition>, Refusal> {
    let conditions = request.object("KeyConditions")?;
    let mut joined = None;
    for (name, json) in conditions.into_iter().flatten() {
        let single = single(name, Request::within("KeyConditions", json)?, false)?;
        joined = Some(match joined {
            None => single,
            Some(before) => Condition::And(Box::new(before), Box::new(single)),
        });
    }
    Ok(joined)
}

/// The condition on one attribute.
fn single(name: &str, given: Request<'_>, is_expected: bool) -> Result<Condition, Refusal> {
    let of_attribute =
        |problem: String| Refusal::invalid(format_args!("{problem} for Attribute: {name}"));
    let value = given.get("Value").map(AttributeValue::from_json).transpose()?;
    let list = given.list("AttributeValueList")?;
    let list = list.iter().map(AttributeValue::from_json);
    let list = list.collect::<Result<Vec<_>, _>>()?;
    let exists = given.flag("Exists")?;
    let path = Path::of(name);
    let Some(operator) = given.text("ComparisonOperator")? else {
        if !is_expected {
            return Err(Request::missing("ComparisonOperator"));
        }
        if !list.is_empty() {
            let problem = "AttributeValueList can only be used with a ComparisonOperator";
            return Err(of_attribute(problem.to_owned()));
        }
        return match (exists, value) {
            (Some(false), None) => Ok(Condition::NotExists(path)),
            (Some(false), Some(_)) => {
                Err(of_attribute("Value cannot be used when Exists is false".to_owned()))
            }
            (_, Some(value)) => Ok(compare(path, Comparator::Equal, value)),
            (exists, None) => Err(of_attribute(format!(
                "Value must be provided when Exists is {}",
                if exists.is_some() { "true" } else { "null" }
            ))),
        };
    };
    if exists.is_some() {
        return Err(of_attribute(
            "Exists and ComparisonOperator cannot be used together".to_owned(),
        ));
    }
    if value.is_some() && !list.is_empty() {
        return Err(of_attribute(
            "Value and AttributeValueList cannot be used together".to_owned(),
        ));
    }
    by_operator(path, operator, value.map_or(list, |value| vec![value]))
}

fn compare(path: Path, comparator: Comparator, value: AttributeValue) -> Condition {
    Condition::Compare(Operand::Path(path), comparator, Operand::Value(value))
}

fn by_operator(
    path: Path,
    operator: &str,
    values: Vec<AttributeValue>,
) -> Result<Condition, Refusal> {
    let count = match operator {
        "NULL" | "NOT_NULL" => 0..=0,
        "EQ" | "NE" | "LE" | "LT" | "GE" | "GT" | "CONTAINS" | "NOT_CONTAINS" | "BEGINS_WITH" => {
            1..=1
        }
        "BETWEEN" => 2..=2,
        "IN" => 1..=100,
        _ => {
            return Err(Refusal::constraint(
                &format!("'{operator}'"),
                "comparisonOperator",
                "Member must satisfy enum value set: [IN, NULL, BETWEEN, LT, NOT_CONTAINS, EQ, GT, \
                 NOT_NULL, NE, LE, BEGINS_WITH, GE, CONTAINS]",
            ));
        }
    };
    if !count.contains(&values.len()) {
        return Err(Refusal::invalid(format_args!(
            "Invalid number of argument(s) for the {operator} ComparisonOperator"
        )));
    }
    let scalar = |value: &AttributeValue| matches!(value.type_name(), "S" | "N" | "B");
    let allowed = match operator {
        "LE" | "LT" | "GE" | "GT" | "BETWEEN" | "IN" | "CONTAINS" | "NOT_CONTAINS" => {
            values.iter().all(scalar)
        }
        "BEGINS_WITH" => values.iter().all(|value| matches!(value.type_name(), "S" | "B")),
        _ => true,
    };
    if !allowed {
        let kind = values.iter().find(|value| !scalar(value) || operator == "BEGINS_WITH");
        return Err(Refusal::invalid(format_args!(
            "ComparisonOperator {operator} is not valid for {} AttributeValue type",
            kind.map_or("", AttributeValue::type_name)
        )));
    }
    if values.windows(2).any(|pair| pair[0].type_name() != pair[1].type_name()) {
        return Err(Refusal::invalid(
            "AttributeValues inside AttributeValueList must be of same type",
        ));
    }
    let mut values = values.into_iter();
    let (Some(value), second) = (values.next(), values.next()) else {
        return Ok(match operator {
            "NULL" => Condition::NotExists(path),
            _ => Condition::Exists(path),
        });
    };
    let comparator = match operator {
        "EQ" => Some(Comparator::Equal),
        "NE" => Some(Comparator::NotEqual),
        "LE" => Some(Comparator::LessOrEqual),
        "LT" => Some(Comparator::Less),
        "GE" => Some(Comparator::GreaterOrEqual),
        "GT" => Some(Comparator::Greater),
        _ => None,
    };
    if let Some(comparator) = comparator {
        return Ok(compare(path, comparator, value));
    }
    let exists = Condition::Exists(path.clone());
    let (attribute, value) = (Operand::Path(path), Operand::Value(value));
    Ok(match (operator, second) {
        ("CONTAINS", _) => Condition::Contains(attribute, value),
        // Of an attribute that is missing it is not said that it does not contain the value.
        ("NOT_CONTAINS", _) => Condition::And(
            Box::new(exists),
            Box::new(Condition::Not(Box::new(Condition::Contains(attribute, value)))),
        ),
        ("BEGINS_WITH", _) => Condition::BeginsWith(attribute, value),
        ("BETWEEN", Some(high)) => Condition::Between(attribute, value, Operand::Value(high)),
        (_, second) => {
            let rest = second.into_iter().chain(values).map(Operand::Value);
            Condition::In(attribute, std::iter::once(value).chain(rest).collect())
        }
    })
}

/// The update of `AttributeUpdates`, if the request has it.
pub(super) fn update(request: Request<'_>) -> Result<Option<Update>, Refusal> {
    let Some(updates) = request.object("AttributeUpdates")? else {
        return Ok(None);
    };
    let mut update = Update::default();
    for (name, json) in updates {
        let given = Request::within("AttributeUpdates", json)?;
        let action = given.choice("Action", &["PUT", "ADD", "DELETE"])?;
        let value = given.get("Value").map(AttributeValue::from_json).transpose()?;
        let path = Path::of(name.as_str());
        let Some(value) = value else {
            if action != "DELETE" {
                return Err(Refusal::invalid(
                    "Only DELETE action is allowed when no attribute value is specified",
                ));
            }
            update.remove.push(path);
            continue;
        };
        let kind = value.type_name();
        match action {
            "PUT" => update.set.push((path, SetValue::Operand(SetOperand::Value(value)))),
            "ADD" if matches!(kind, "N" | "SS" | "NS" | "BS" | "L") => {
                update.add.push((path, value));
            }
            "ADD" => {
                return Err(Refusal::invalid(format_args!(
                    "ADD action is not supported for the type {kind}"
                )));
            }
            _ if matches!(kind, "SS" | "NS" | "BS") => update.delete.push((path, value)),
            _ => {
                return Err(Refusal::invalid(format_args!(
                    "DELETE action with value is not supported for the type {kind}"
                )));
            }
        }
    }
    Ok(Some(update))
}

/// The projection of `AttributesToGet`, if the request has it.
pub(super) fn projection(request: Request<'_>) -> Result<Option<Projection>, Refusal> {
    if !request.has("AttributesToGet") {
        return Ok(None);
    }
    let names = request.list("AttributesToGet")?;
    if names.is_empty() {
        return Err(Refusal::constraint(
            "'[]'",
            "attributesToGet",
            "Member must have length greater than or equal to 1",
        ));
    }
    let mut paths = Vec::new();
    for name in names.iter().map(|name: &Value| text(name)) {
        let path = Path::of(name?);
        if paths.contains(&path) {
            return Err(Refusal::invalid(format_args!(
                "Duplicate value in attribute name: {}",
                path.attribute()
            )));
        }
        paths.push(path);
    }
    Ok(Some(Projection::of(paths)))
}
