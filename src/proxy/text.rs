//! Header values that every answer gets, put together on the stack.
//!
//! They are words and numbers; the formatting machinery and a growing string cost several times as
//! much as writing the digits.

use http::HeaderValue;

/// Room for the longest value: names, and seven numbers of twenty digits.
const ROOM: usize = 256;

/// A value as it is put together; what does not fit is left out.
pub(super) struct Text {
    bytes: [u8; ROOM],
    len: usize,
}

impl Text {
    pub(super) const fn new() -> Self {
        Self { bytes: [0; ROOM], len: 0 }
    }

    pub(super) fn text(mut self, text: &str) -> Self {
        self.push(text.as_bytes());
        self
    }

    pub(super) fn number(mut self, number: u64) -> Self {
        self.digits(number, 1);
        self
    }

    /// A number of thousandths, as a decimal fraction.
    pub(super) fn thousandths(mut self, number: u64) -> Self {
        self.digits(number / 1_000, 1);
        self.push(b".");
        self.digits(number % 1_000, 3);
        self
    }

    /// The number in hexadecimal, all 32 digits of it.
    pub(super) fn hex(mut self, number: u128) -> Self {
        for byte in number.to_be_bytes() {
            let digit = |half: u8| b"0123456789abcdef"[usize::from(half)];
            self.push(&[digit(byte >> 4), digit(byte & 15)]);
        }
        self
    }

    pub(super) fn into_value(self) -> HeaderValue {
        HeaderValue::from_bytes(&self.bytes[..self.len]).expect("what was put in is visible ASCII")
    }

    fn digits(&mut self, mut number: u64, at_least: usize) {
        let mut digits = [b'0'; 20];
        let mut first = digits.len();
        while number > 0 || digits.len() - first < at_least {
            first -= 1;
            digits[first] = b'0' + u8::try_from(number % 10).expect("a digit fits");
            number /= 10;
        }
        self.push(&digits[first..]);
    }

    fn push(&mut self, bytes: &[u8]) {
        if let Some(room) = self.bytes.get_mut(self.len..self.len + bytes.len()) {
            room.copy_from_slice(bytes);
            self.len += bytes.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_the_formatter_writes_them() {
        for number in [0, 7, 10, 999, 1_000, 1_000_001, u64::MAX] {
            assert_eq!(Text::new().number(number).into_value(), number.to_string());
            let (whole, part) = (number / 1_000, number % 1_000);
            let expected = format!("{whole}.{part:03}");
            assert_eq!(Text::new().thousandths(number).into_value(), expected);
        }
        for number in [0, 0xabc, u128::MAX] {
            assert_eq!(Text::new().hex(number).into_value(), format!("{number:032x}"));
        }
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let long = "x".repeat(ROOM);
        assert_eq!(Text::new().text(&long).text("y").into_value(), long);
    }
}
