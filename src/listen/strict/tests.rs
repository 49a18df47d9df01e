//! What is read in one way passes untouched; what is not stops at the byte that makes it so.

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use tokio::io::AsyncReadExt as _;

use super::*;

const HEAD: &str = "POST /v3/contacts HTTP/1.1\r\nHost: proxy\r\n";

fn read(bytes: &str) -> Result<bool, Doubtful> {
    let mut framing = Framing::default();
    framing.read(bytes.as_bytes())?;
    Ok(matches!(framing.place, Place::Line) && !framing.head.begun && framing.head.line.len == 0)
}

#[test]
fn whole_messages_are_read_to_their_end() {
    for rest in [
        "\r\n",
        "Content-Length: 0\r\n\r\n",
        "Content-Length: 3\r\n\r\nabc",
        "content-LENGTH:\t3 \r\n\r\n\r\n\0",
        "Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n00A;x=\"y\"\r\n0123456789\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\n",
        "X-Long: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n\r\n",
        "X-Empty:\r\n\r\n",
    ] {
        let message = format!("{HEAD}{rest}");
        assert_eq!(read(&message), Ok(true), "{message}");
        assert_eq!(read(&format!("\r\n{message}{message}")), Ok(true), "{message} twice");
    }
    assert_eq!(read("GET / HTTP/1.0\r\n\r\n"), Ok(true), "an old client names no host");
}

#[test]
fn a_message_is_not_over_before_its_end() {
    for part in
        ["", "X: y\r\n", "Content-Length: 3\r\n\r\nab", "Transfer-Encoding: chunked\r\n\r\n0\r\n"]
    {
        assert_eq!(read(&format!("{HEAD}{part}")), Ok(false), "{part}");
    }
}

/// What follows [`HEAD`], up to the byte at which it is doubtful, and that byte.
const DOUBTFUL: [(&str, &str); 27] = [
    ("", "\n"),
    ("X: y", "\n"),
    ("X: y\r", "\r"),
    ("X: y\r", "\0"),
    (" folded\r", "\n"),
    ("X: y\r\n\tfolded\r", "\n"),
    ("Content-Length : 3\r", "\n"),
    (": 3\r", "\n"),
    ("Host: other\r", "\n"),
    ("Content-Length: 3\r\nContent-Length: 3\r", "\n"),
    ("Content-Length: 3, 3\r", "\n"),
    ("Content-Length: +3\r", "\n"),
    ("Content-Length: -3\r", "\n"),
    ("Content-Length: 0x3\r", "\n"),
    ("Content-Length:\r", "\n"),
    ("Content-Length: 99999999999999999999\r", "\n"),
    ("Content-Length: 000000000000000000000000000000000000000\r", "\n"),
    ("Content-Length: 3\r\nTransfer-Encoding: chunked\r", "\n"),
    ("Transfer-Encoding: chunked\r\nContent-Length: 3\r", "\n"),
    ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r", "\n"),
    ("Transfer-Encoding: gzip, chunked\r", "\n"),
    ("Transfer-Encoding: xchunked\r", "\n"),
    ("Transfer-Encoding:\r", "\n"),
    ("Transfer-Encoding: chunked\r\n\r\n3", " "),
    ("Transfer-Encoding: chunked\r\n\r\n3;x", "\n"),
    ("Transfer-Encoding: chunked\r\n\r\n3\r\nabc", "d"),
    ("Transfer-Encoding: chunked\r\n\r\n0000000000000000", "3"),
];

#[test]
fn what_could_be_read_in_two_ways_stops_where_it_could() {
    for (good, bad) in DOUBTFUL {
        let at = HEAD.len() + good.len();
        assert_eq!(read(&format!("{HEAD}{good}")), Ok(false), "{good}");
        assert_eq!(read(&format!("{HEAD}{good}{bad}more")), Err(Doubtful(at)), "{good}{bad}");
    }
    let hostless = "GET / HTTP/1.1\r\nX: y\r\n\r\n";
    assert_eq!(read(hostless), Err(Doubtful(hostless.len() - 1)), "RFC 9112 section 3.2");
}

#[test]
fn the_limits_of_lines_are_exact() {
    let padded = |spaces: usize| format!("{HEAD}Content-Length:{}3\r\n\r\nabc", " ".repeat(spaces));
    let most = LINE_KEPT - "Content-Length:3".len();
    assert_eq!(read(&padded(most)), Ok(true));
    assert!(read(&padded(most + 1)).is_err());
    let sixteen = "Transfer-Encoding: chunked\r\n\r\n0000000000000003\r\nabc\r\n0\r\n\r\n";
    assert_eq!(read(&format!("{HEAD}{sixteen}")), Ok(true));
}

#[tokio::test]
async fn a_doubtful_byte_is_read_as_nul_and_nothing_after_it() {
    let bytes = format!("{HEAD}X: y\nGET /hidden HTTP/1.1\r\n");
    let mut strict = Strict::new(bytes.as_bytes());
    let mut all = Vec::new();
    strict.read_to_end(&mut all).await.unwrap();
    assert_eq!(String::from_utf8(all).unwrap(), format!("{HEAD}X: y\0"));
}

#[tokio::test]
async fn a_clear_message_is_read_as_it_is() {
    let bytes = format!("{HEAD}Content-Length: 3\r\n\r\nabc{HEAD}\r\n");
    let mut strict = Strict::new(bytes.as_bytes());
    let mut all = Vec::new();
    strict.read_to_end(&mut all).await.unwrap();
    assert_eq!(String::from_utf8(all).unwrap(), bytes);
}

/// Pieces of messages, good and bad, in any order.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(HEAD.to_owned()),
        Just("\r\n".to_owned()),
        Just("\n".to_owned()),
        Just("Content-Length: 5\r\n".to_owned()),
        Just("Transfer-Encoding: chunked\r\n\r\n".to_owned()),
        Just("3\r\nabc\r\n".to_owned()),
        Just("0\r\n\r\n".to_owned()),
        "[ -~]{0,60}",
    ];
    vec(piece, 0..12).prop_map(|pieces| pieces.concat().into_bytes())
}

proptest! {
    #[test]
    fn it_matters_not_in_which_pieces_the_bytes_come(
        bytes in pieces(),
        cuts in vec(any::<proptest::sample::Index>(), 0..6),
    ) {
        let mut whole = Framing::default();
        let at_once = whole.read(&bytes);
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        cuts.push(bytes.len());
        let (mut parts, mut from) = (Framing::default(), 0);
        let mut in_parts = Ok(());
        for to in cuts {
            in_parts = parts.read(&bytes[from..to]).map_err(|Doubtful(at)| Doubtful(from + at));
            if in_parts.is_err() {
                break;
            }
            from = to;
        }
        prop_assert_eq!(at_once, in_parts);
    }

    #[test]
    fn any_bytes_are_read(bytes in vec(any::<u8>(), 0..400)) {
        let mut framing = Framing::default();
        if let Err(Doubtful(at)) = framing.read(&bytes) {
            prop_assert!(at < bytes.len());
        }
    }
}
