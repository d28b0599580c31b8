//! Expressions, by examples and by random texts.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::refusal::Refusal;
use super::super::request::Request;
use super::super::value::{Item, item_from_json, item_to_json};
use super::*;

fn item() -> Item {
    let item = json!({
        "id": {"S": "a"}, "x": {"N": "5"}, "word": {"S": "hello"}, "flag": {"BOOL": true},
        "tags": {"SS": ["a", "b"]}, "list1": {"L": [{"N": "0"}, {"N": "1"}, {"N": "2"}]},
        "doc": {"M": {"in": {"M": {"deep": {"S": "down"}}}}},
    });
    item_from_json(&item).unwrap()
}

fn values() -> Value {
    json!({
        ":five": {"N": "5"}, ":six": {"N": "6"}, ":a": {"S": "a"}, ":h": {"S": "he"},
        ":list": {"L": [{"N": "9"}]}, ":set": {"SS": ["b", "c"]}, ":true": {"BOOL": true},
        ":S": {"S": "S"}, ":odd": {"S": "ODD"},
    })
}

fn placeholders() -> Placeholders {
    let request = json!({
        "E": "", "ExpressionAttributeValues": values(),
        "ExpressionAttributeNames": {"#d": "doc", "#in": "in"},
    });
    let request = Request::within("a request", &request).unwrap();
    Placeholders::read(request, &["E"]).unwrap()
}

fn condition(text: &str) -> Result<Condition, Refusal> {
    Condition::parse("ConditionExpression", text, &mut placeholders())
}

#[test]
fn conditions_hold_or_not() {
    for (text, holds) in [
        ("x = :five", true),
        (":five = x", true),
        ("x <> :five", false),
        ("gone <> :five", true),
        ("gone = :five", false),
        ("x < :six AND x >= :five", true),
        ("x = :six OR x = :five AND id = :a", true),
        ("(x = :six OR x = :five) AND id = :h", false),
        ("NOT x = :six", true),
        ("NOT NOT x = :six", false),
        ("x BETWEEN :five AND :six AND id = :a", true),
        ("x IN (:a, :six, :five)", true),
        ("x in (:a)", false),
        ("attribute_exists(#d.#in.deep) and attribute_not_exists(#d.more)", true),
        ("attribute_exists(list1[2]) AND NOT attribute_exists(list1[3])", true),
        ("attribute_type(id, :S)", true),
        ("begins_with(word, :h)", true),
        ("contains(tags, :a) AND contains(word, :h)", true),
        ("contains(gone, :a)", false),
        ("size(word) = :five", true),
        ("size(word) = size(list1)", false),
        ("size(x) = :five", false),
        ("(word) > (:h)", true),
        ("((x = :five))", true),
        ("id = x", false),
        ("x > id", false),
    ] {
        assert_eq!(condition(text).unwrap().holds(&item()), holds, "{text}");
    }
}

#[test]
fn malformed_conditions_say_what_is_wrong() {
    for (text, expected) in [
        ("", "The expression can not be empty"),
        ("  ", "The expression can not be empty"),
        ("x =", "Syntax error; token: <EOF>, near: \"=\""),
        ("x = = :five", "Syntax error; token: \"=\""),
        ("x ? :five", "Syntax error; token: \"?\""),
        ("x = :five)", "Syntax error; token: \")\""),
        ("counter = :five", "reserved keyword: counter"),
        ("x = :none", "attribute value used in expression is not defined; attribute value: :none"),
        (
            "#none = :a",
            "attribute name used in the document path is not defined; attribute name: #none",
        ),
        (
            "x < :true",
            "Incorrect operand type for operator or function; operator or function: <, operand type: BOOL",
        ),
        (
            "x BETWEEN :six AND :five",
            "requires upper bound to be greater than or equal to lower bound",
        ),
        ("nothing(x)", "Invalid function name; function: nothing"),
        ("attribute_exists(x, x)", "Incorrect number of operands"),
        ("attribute_exists(:a)", "requires a document path"),
        ("attribute_type(x, :odd)", "Invalid attribute type name found; type: ODD"),
        ("size(x)", "Syntax error"),
        ("x = begins_with(x, :a)", "not allowed to be used this way"),
        ("x = x", "must be distinct"),
        ("x = if_not_exists(x, :a)", "not allowed in a condition expression"),
    ] {
        let refusal = condition(text).unwrap_err();
        assert!(refusal.message().starts_with("Invalid ConditionExpression: "), "{text}");
        assert!(refusal.message().contains(expected), "{text}: {}", refusal.message());
    }
    let deep = format!("{}x = :five{}", "(".repeat(2000), ")".repeat(2000));
    assert!(condition(&deep).unwrap_err().message().contains("nesting"));
    let long = vec!["x = :five"; 350].join(" OR ");
    assert!(condition(&long).is_err());
}

fn updated(text: &str) -> Result<Value, Refusal> {
    let update = Update::parse(text, &mut placeholders())?;
    Ok(item_to_json(&update.apply(&item())?))
}

#[test]
fn updates_change_what_they_name() {
    for (text, name, value) in [
        ("SET x = :six", "x", json!({"N": "6"})),
        ("SET y = x + :six", "y", json!({"N": "11"})),
        ("set x = x - :six", "x", json!({"N": "-1"})),
        ("SET x = (x + :five)", "x", json!({"N": "10"})),
        ("SET y = if_not_exists(y, :six) + :five", "y", json!({"N": "11"})),
        ("SET x = if_not_exists(x, :six)", "x", json!({"N": "5"})),
        ("SET y = list_append(:list, :list)", "y", json!({"L": [{"N": "9"}, {"N": "9"}]})),
        ("SET #d.#in.deep = :a", "doc", json!({"M": {"in": {"M": {"deep": {"S": "a"}}}}})),
        (
            "SET list1[9] = :a, list1[7] = :h",
            "list1",
            json!({"L": [{"N": "0"}, {"N": "1"}, {"N": "2"}, {"S": "he"}, {"S": "a"}]}),
        ),
        ("REMOVE list1[0], list1[1]", "list1", json!({"L": [{"N": "2"}]})),
        ("REMOVE x", "x", Value::Null),
        ("ADD x :six", "x", json!({"N": "11"})),
        ("ADD y :six", "y", json!({"N": "6"})),
        ("ADD tags :set", "tags", json!({"SS": ["a", "b", "c"]})),
        ("DELETE tags :set", "tags", json!({"SS": ["a"]})),
        ("SET tags = :set DELETE gone :set", "tags", json!({"SS": ["b", "c"]})),
        // What is read is what was there before.
        ("SET x = :six, y = x REMOVE id", "y", json!({"N": "5"})),
    ] {
        let after = updated(text).unwrap();
        assert_eq!(after.get(name).cloned().unwrap_or_default(), value, "{text}");
    }
}

#[test]
fn malformed_updates_say_what_is_wrong() {
    for (text, expected) in [
        ("SET x = :six SET y = :six", "section can only be used once"),
        ("SET x = :six, x = :five", "overlap with each other"),
        ("SET #d.#in = :a REMOVE #d", "overlap with each other"),
        ("SET #d.a = :a, #d[0] = :a", "conflict with each other"),
        ("SET x :six", "Syntax error; token: \":six\""),
        ("GO x", "Syntax error; token: \"GO\""),
        ("ADD x :a", "operator: ADD, operand type: STRING"),
        ("DELETE x :six", "operator: DELETE, operand type: NUMBER"),
        ("SET x = x + :a", "operand type: S"),
        ("SET x = list_append(:a, :list)", "list_append, operand type: S"),
        ("SET x = y", "refers to an attribute that does not exist"),
        ("SET x = id + :five", "incorrect data type"),
        ("ADD id :five", "incorrect data type"),
        ("SET y.z = :a", "invalid for update"),
        ("REMOVE x.y", "invalid for update"),
        ("SET x = size(id)", "not allowed in an update expression"),
    ] {
        let refusal = updated(text).unwrap_err();
        assert!(refusal.message().contains(expected), "{text}: {}", refusal.message());
    }
}

#[test]
fn projections_show_a_part() {
    let project = |text: &str| {
        let projection = Projection::parse(text, &mut placeholders()).unwrap();
        item_to_json(&projection.of_item(&item()))
    };
    assert_eq!(project("x, gone"), json!({"x": {"N": "5"}}));
    let list = json!({"list1": {"L": [{"N": "0"}, {"N": "2"}]}});
    assert_eq!(project("list1[2], list1[0]"), list);
    let deep = json!({"doc": {"M": {"in": {"M": {"deep": {"S": "down"}}}}}});
    assert_eq!(project("#d.#in.deep, #d.nil, x.y"), deep);
    assert!(Projection::parse("x, x", &mut placeholders()).is_err());
    assert!(Projection::parse("x,", &mut placeholders()).is_err());
}

/// Texts that look like expressions, more or less.
fn garbage() -> impl Strategy<Value = String> {
    let pieces = [
        "x",
        "id",
        "list1",
        "[",
        "]",
        "[0]",
        ".",
        "(",
        ")",
        ",",
        "=",
        "<>",
        "<",
        ">=",
        "+",
        "-",
        ":five",
        ":a",
        ":list",
        ":set",
        ":none",
        "#d",
        "#none",
        "AND",
        "OR",
        "NOT",
        "BETWEEN",
        "IN",
        "SET",
        "REMOVE",
        "ADD",
        "DELETE",
        "size(",
        "attribute_exists(",
        "contains(",
        "list_append(",
        "if_not_exists(",
        "ü",
        "?",
        ":",
        "#",
        "counter",
        "99999999999999999999999",
    ];
    proptest::collection::vec(proptest::sample::select(pieces.to_vec()), 0..25)
        .prop_map(|pieces| pieces.join(" "))
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(pieces in garbage(), any in ".{0,80}") {
        for text in [&pieces, &any] {
            if let Ok(condition) = condition(text) {
                condition.holds(&item());
                prop_assert!(condition.paths().len() < 100);
            }
            let _ = updated(text);
            let _ = Projection::parse(text, &mut placeholders()).map(|p| p.of_item(&item()));
        }
    }

    /// NOT, AND and OR are those of logic, whatever they join.
    #[test]
    fn connectives_are_those_of_logic(
        a in proptest::sample::select(vec!["x = :five", "id = :h", "attribute_exists(y)"]),
        b in proptest::sample::select(vec!["x < :six", "contains(tags, :h)", "gone <> :a"]),
    ) {
        let holds = |text: String| condition(&text).unwrap().holds(&item());
        let (left, right) = (holds(a.into()), holds(b.into()));
        prop_assert_eq!(holds(format!("{a} AND {b}")), left && right);
        prop_assert_eq!(holds(format!("{a} OR {b}")), left || right);
        prop_assert_eq!(holds(format!("NOT ({a} OR {b})")), !left && !right);
        prop_assert_eq!(holds(format!("NOT {a} AND {b}")), !left && right);
    }
}
