//! The message of a caught panic.

use std::any::Any;

/// Returns the text that a caught panic was raised with.
pub fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a value that is no text".to_owned())
}

#[cfg(test)]
mod tests {
    use std::panic::{catch_unwind, panic_any};

    use super::*;

    #[test]
    fn literals_and_formatted_texts_are_shown() {
        let number = 7;
        let message = |raise: fn(i32)| {
            let panic = catch_unwind(|| raise(number)).unwrap_err();
            panic_message(&*panic)
        };
        assert_eq!(message(|_| panic!("a literal")), "a literal");
        assert_eq!(message(|number| panic!("number {number}")), "number 7");
        assert_eq!(message(|number| panic_any(number)), "a value that is no text");
    }
}
