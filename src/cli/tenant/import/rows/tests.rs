//! Files as people write them, good and bad.

use super::*;

/// The tenants that were read, and the problems with their line numbers.
fn read(content: impl AsRef<[u8]>) -> (Vec<String>, Vec<String>) {
    let (mut rows, mut problems) = (Vec::new(), Vec::new());
    for line in parse(content.as_ref()).unwrap() {
        match line.row {
            Ok(row) => rows.push(format!("{} {}", line.number, row.tenant)),
            Err(problem) => problems.push(format!("{}: {problem}", line.number)),
        }
    }
    assert!(!problems.concat().contains("s3cret"), "{problems:?}");
    (rows, problems)
}

fn refused(content: impl AsRef<[u8]>) -> String {
    let text = format!("{:#}", parse(content.as_ref()).unwrap_err());
    assert!(!text.contains("s3cret"), "{text}");
    text
}

#[test]
fn marks_line_ends_quotes_and_empty_lines_are_no_matter() {
    let text = "\u{feff}\r\ntenant,api_key, refresh_token ,weight\r\n\r\n\
                a,k,s3cret1,\r\n,,,\r\n\r\n\"b\",\"k\",\"s3cret,2\",7\r\n \r\nc,k,s3cret\"3,1\r\n";
    let (rows, problems) = read(text);
    assert_eq!(rows, ["4 a", "7 b", "9 c"]);
    assert_eq!(problems, [""; 0]);
    let lines = parse(text.as_bytes()).unwrap();
    let row = lines[1].row.as_ref().unwrap();
    assert_eq!(row.refresh_token.expose(), "s3cret,2");
    assert_eq!((row.weight, row.access_token.is_none()), (Some(7), true));
}

#[test]
fn a_line_may_end_as_old_programs_end_it() {
    let (rows, problems) =
        read("tenant,api_key,refresh_token\ra,k,s3cret1\r\rb,k,s3cret2\rb,k,s3cret3");
    assert_eq!(rows, ["2 a"]);
    assert_eq!(
        problems,
        [
            "4: the same tenant is on line 5 too; keep one of them",
            "5: the same tenant is on line 4 too; keep one of them",
        ]
    );
}

#[test]
fn each_bad_line_is_named_with_its_number_and_the_others_are_read() {
    let (rows, problems) = read(
        "tenant,api_key,refresh_token,access_token,weight\n\
         a,k,s3cret1,,\n\
         -b,k,s3cret2,,\n\
         c,k,,s3cret3,\n\
         ,k,s3cret4,,\n\
         e,k\n\
         f,k,s3cret 5,,\n\
         g,k,s3cret6,,0\n\
         h,k,s3cret7,,two\n\
         i,,s3cret8,,\n\
         z,k,\"s3cret9,,\nj,k,s3cretA,,\n",
    );
    assert_eq!(rows, ["2 a"]);
    let parts = [
        ("3: ", "tenant: a name has"),
        ("4: ", "offline_access"),
        ("5: ", "tenant is empty"),
        ("6: ", "has 2 columns, the header 5"),
        ("7: ", "refresh_token holds white space"),
        ("8: ", "weight is no whole number"),
        ("9: ", "weight is no whole number"),
        ("10: ", "api_key is empty"),
        ("11: ", "has 3 columns"),
    ];
    assert_eq!(problems.len(), parts.len(), "{problems:?}");
    for (problem, (number, words)) in problems.iter().zip(parts) {
        assert!(problem.starts_with(number) && problem.contains(words), "{problem}");
    }
    let (_, open) = read("tenant,api_key,refresh_token\nz,k,\"s3cret9\nj,k,s3cretA\n");
    assert!(open[0].contains("is a quote not closed?"), "{open:?}");
    let (_, problems) = read(b"tenant,api_key,refresh_token\na,k,s3cret\xff\n");
    assert_eq!(problems, ["2: is not UTF-8"]);
}

#[test]
fn a_file_without_a_good_header_is_refused_without_showing_its_values() {
    for (text, words) in [
        ("", "the file is empty"),
        ("\u{feff} \r\n", "the file is empty"),
        (",,\n", "has no header line"),
        ("acme,k,s3cret\n", "the first line is no header: none of its 3 columns"),
        ("tenant,api_key,token\n", "column 3: there is no field \"token\"; there are tenant,"),
        ("tenant,api_key,s3cret-s3cret-s3cret-s3cret\n", "column 3: there is no field of this"),
        ("tenant,api_key,\n", "column 3: there is no field of this name"),
        ("tenant,refresh_token\n", "has no column api_key"),
        ("tenant,api_key,refresh_token,tenant\n", "two columns tenant"),
        ("tenant;api_key;refresh_token\na;k;s3cret\n", "separated by semicolons; write commas"),
        ("tenant\tapi_key\trefresh_token\n", "separated by tabs"),
        ("[{\"tenant\": \"a\"}]", "JSON array"),
    ] {
        let told = refused(text);
        assert!(told.contains(words), "{text:?}: {told}");
    }
    assert!(refused(b"\xff\xfet\0e\0").contains("UTF-16"));
}

#[test]
fn json_lines_are_read_one_by_one() {
    let (rows, problems) = read(
        "\u{feff}{\"tenant\":\"a\",\"api_key\":\"k\",\"refresh_token\":\"s3cret1\",\"weight\":2}\r\
         \n\
         \r\n\
         {\"tenant\":\"b\",\"api_key\":\"k\",\"refresh_token\":{\"s3cret\":1}}\n\
         {\"tenant\":\"c\",\"api_key\":\"k\",\"refresh\":\"s3cret2\"}\n\
         s3cret\n{\n[\"s3cret\"]\n\
         {\"tenant\":\"d\",\"api_key\":\"k\",\"refresh_token\":\"s3cret3\",\"weight\":-1}\n\
         {\"tenant\":\"e\",\"api_key\":\"k\",\"refresh_token\":null}\n\
         {\"tenant\":\"f\",\"api_key\":\"k\",\"refresh_token\":\"s3cret4\",\"access_token\":null}",
    );
    assert_eq!(rows, ["1 a", "10 f"]);
    let starts = [
        "3: refresh_token is no text",
        "4: there is no field \"refresh\"",
        "5: is no JSON: mistake at column 1",
        "6: is no whole JSON object",
        "7: is no JSON object",
        "8: weight is no whole number",
        "9: refresh_token is empty",
    ];
    assert_eq!(problems.len(), starts.len(), "{problems:?}");
    for (problem, start) in problems.iter().zip(starts) {
        assert!(problem.starts_with(start), "{problem}");
    }
}

#[test]
fn of_lines_that_contradict_each_other_none_is_taken() {
    let (rows, problems) = read(
        "tenant,api_key,refresh_token\n\
         a,k,s3cret1\nb,k,s3cret2\na,k,s3cret3\nc,k,s3cret4\nd,k,s3cret4\na,k,s3cret1\n",
    );
    assert_eq!(rows, ["3 b"]);
    assert_eq!(
        problems,
        [
            "2: the same tenant is on line 4 too; keep one of them",
            "4: the same tenant is on line 2 too; keep one of them",
            "5: the same refresh_token is on line 6 too; keep one of them",
            "6: the same refresh_token is on line 5 too; keep one of them",
            "7: the same tenant is on line 2 too; keep one of them",
        ]
    );
}
