use super::*;

fn form(fields: &str, error: &str) -> GatewayForm {
    let document = format!(
        "<config-auth type=\"auth-request\"><auth id=\"main\"><message>Say\nwho you are.\u{202e}</message>{error}\
         <form>{fields}</form></auth></config-auth>"
    );
    match Told::of_document(document.as_bytes()) {
        Ok(Told::Form(form)) => form,
        Ok(Told::Complete { .. } | Told::Refused(_)) | Err(_) => panic!("it is a form"),
    }
}

const FIELDS: &str = "<input type=\"text\" name=\"username\" label=\"User:\"/><input type=\"password\" name=\"password\"/>\
    <select name=\"group_list\" label=\"Group\"><option value=\"g1\">One</option><option>Two</option></select>\
    <input type=\"hidden\" name=\"h\" value=\"1\"/>";

#[test]
fn questions_are_shown_as_those_of_the_native_login() {
    let form = form(FIELDS, "");
    let shown: Vec<_> = form.questions().map(field).map(|field| (field.name, field.label, field.kind)).collect();
    let expected = [
        ("user", "User", FieldKind::Text),
        ("password", "password", FieldKind::Secret),
        ("group_list", "Group", FieldKind::Choice),
    ];
    assert_eq!(shown, expected.map(|(name, label, kind)| (name.to_owned(), label.to_owned(), kind)));
    let choices: Vec<_> = form.questions().map(field).flat_map(|field| field.choices).collect();
    assert_eq!(choices, ["One", "Two"]);
}

#[test]
fn answers_go_back_under_the_names_and_values_of_the_form() {
    let answers = [("user", "alice"), ("password", "p"), ("group_list", "One"), ("other", "o")];
    let answers = answers.map(|(name, answer)| (name.to_owned(), answer.to_owned()));
    let given = given(&form(FIELDS, ""), answers.into());
    let given: Vec<_> = given.iter().map(|(name, answer)| (name.as_str(), answer.as_str())).collect();
    assert_eq!(given, [("group_list", "g1"), ("password", "p"), ("username", "alice")]);
}

#[test]
fn texts_are_shown_line_by_line_and_harmless_with_the_error_first() {
    let refused = form(FIELDS, "<error>No.</error>");
    assert_eq!(shown_text(&refused), "No.\nSay\nwho you are.\\u{202e}");
    assert_eq!((reason(&refused), reason(&form(FIELDS, ""))), ("No.", "Say"));
}
