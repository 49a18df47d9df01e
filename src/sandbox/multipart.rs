//! Reading of `multipart/form-data` bodies (RFC 7578), as much of it as a bulk import needs.
//!
//! The whole body is in memory; parts borrow from it. A body that a middle box touched, so that its
//! boundary no longer fits, has no parts and is refused by the caller.

/// One field of a form.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part<'a> {
    pub(super) name: &'a str,
    pub(super) file_name: Option<&'a str>,
    pub(super) data: &'a [u8],
}

/// The fields of `body`; none when it is not a form with this content type's boundary.
pub(super) fn parts<'a>(content_type: &str, body: &'a [u8]) -> Option<Vec<Part<'a>>> {
    let (kind, params) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = params.split(';').find_map(|param| param.trim().strip_prefix("boundary="))?;
    let delimiter = format!("--{}", boundary.trim_matches('"'));
    let mut rest = body.get(find(body, delimiter.as_bytes())? + delimiter.len()..)?;
    let between = format!("\r\n{delimiter}");
    let mut parts = Vec::new();
    while let Some(part) = rest.strip_prefix(b"\r\n") {
        let head_end = find(part, b"\r\n\r\n")?;
        let data_start = head_end + 4;
        let data_end = data_start + find(&part[data_start..], between.as_bytes())?;
        let head = std::str::from_utf8(&part[..head_end]).ok()?;
        parts.push(Part {
            name: attribute(head, "name")?,
            file_name: attribute(head, "filename"),
            data: &part[data_start..data_end],
        });
        rest = &part[data_end + between.len()..];
    }
    rest.starts_with(b"--").then_some(parts)
}

/// The value of an attribute of the part's `Content-Disposition`.
fn attribute<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let is_disposition =
        |line: &&str| line.to_ascii_lowercase().starts_with("content-disposition:");
    let line = head.lines().find(is_disposition)?;
    line.split(';').find_map(|param| {
        let value = param.trim().strip_prefix(name)?.strip_prefix('=')?;
        Some(value.trim_matches('"'))
    })
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut from = 0;
    loop {
        from += haystack.get(from..)?.iter().position(|&byte| byte == first)?;
        if haystack[from..].starts_with(needle) {
            return Some(from);
        }
        from += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_with_a_file_is_read() {
        let body = b"--xx\r\nContent-Disposition: form-data; name=\"list_ids\"\r\n\r\na,b\r\n\
            --xx\r\nContent-Disposition: form-data; name=\"file\"; filename=\"c.csv\"\r\n\
            Content-Type: text/csv\r\n\r\nemail\r\n--x\r\n\r\n--xx--\r\n";
        let parts = parts("multipart/form-data; boundary=xx", body).unwrap();
        assert_eq!(parts[0], Part { name: "list_ids", file_name: None, data: b"a,b" });
        let data = b"email\r\n--x\r\n";
        assert_eq!(parts[1], Part { name: "file", file_name: Some("c.csv"), data });
        assert_eq!(parts.len(), 2);
    }

    #[test]
    fn what_is_not_a_whole_form_has_no_parts() {
        assert_eq!(parts("application/json", b"{}"), None);
        assert_eq!(parts("multipart/form-data; boundary=yy", b"--xx--\r\n"), None);
        let unfinished = b"--xx\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nb";
        assert_eq!(parts("multipart/form-data; boundary=xx", unfinished), None);
    }
}
