//! TwiML, read as strictly as Twilio reads it: well-formed XML, known verbs and attributes only.

use super::CallError;
use std::collections::BTreeMap;

/// What the TwiML asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A bidirectional stream.
    Stream { url: String, parameters: BTreeMap<String, String> },
    /// Words and a hang-up.
    Apology,
}

/// Longest name and value of a parameter together, in characters: Twilio's limit is "less than 500".
const PARAMETER_CHARS_MAX: usize = 499;

/// Reads a document.
pub(super) fn parse(xml: &str) -> Result<Answer, CallError> {
    document(xml).map_err(CallError::Twiml)
}

fn document(xml: &str) -> Result<Answer, String> {
    let mut open: Vec<String> = Vec::new();
    let mut answer = None;
    let mut closed = false;
    let mut rest = xml.trim();
    if let Some(declared) = rest.strip_prefix("<?xml ") {
        rest = declared.split_once("?>").ok_or("the XML declaration does not end")?.1;
    }
    while !rest.is_empty() {
        let Some(tag) = rest.strip_prefix('<') else {
            let (text, after) = rest.split_at(rest.find('<').unwrap_or(rest.len()));
            let allowed = open.last().is_some_and(|verb| verb == "Say") || text.trim().is_empty();
            unescape(text)?;
            if !allowed {
                return Err(format!("text outside of a verb: {:?}", text.trim()));
            }
            rest = after;
            continue;
        };
        let (tag, after) = tag.split_at(tag_len(tag).ok_or("a tag does not end")?);
        rest = &after[1..];
        if let Some(name) = tag.strip_prefix('/') {
            if open.pop().as_deref() != Some(name.trim_end()) {
                return Err(format!("</{name}> closes nothing"));
            }
            closed = open.is_empty();
            continue;
        }
        if closed {
            return Err("more than one root element".to_owned());
        }
        let (tag, is_empty) = tag.strip_suffix('/').map_or((tag, false), |tag| (tag, true));
        let (name, attributes) = tag.split_once(|char: char| char.is_ascii_whitespace()).unwrap_or((tag, ""));
        element(&open, name, attributes_of(attributes)?, &mut answer)?;
        if is_empty {
            closed = open.is_empty();
        } else {
            open.push(name.to_owned());
        }
    }
    if !open.is_empty() || !closed {
        return Err("the document does not end".to_owned());
    }
    Ok(answer.unwrap_or(Answer::Apology))
}

fn element(open: &[String], name: &str, mut attributes: BTreeMap<String, String>, answer: &mut Option<Answer>) -> Result<(), String> {
    let path: Vec<&str> = open.iter().map(String::as_str).collect();
    let mut known: &[&str] = &[];
    match (path.as_slice(), name) {
        ([], "Response") | (["Response"], "Connect" | "Hangup") => {}
        (["Response"], "Say") => known = &["voice", "language", "loop"],
        (["Response"], "Pause") => known = &["length"],
        (["Response", "Connect"], "Stream") if answer.is_none() => {
            let url = attributes.remove("url").ok_or("<Stream> has no url")?;
            known = &["name", "statusCallback", "statusCallbackMethod"];
            *answer = Some(Answer::Stream { url, parameters: BTreeMap::new() });
        }
        (["Response", "Connect", "Stream"], "Parameter") => {
            let (name, value) = attributes.remove("name").zip(attributes.remove("value")).ok_or("<Parameter> lacks name or value")?;
            if name.chars().count() + value.chars().count() > PARAMETER_CHARS_MAX {
                return Err(format!("parameter {name} is longer than {PARAMETER_CHARS_MAX} characters"));
            }
            if let Some(Answer::Stream { parameters, .. }) = answer {
                parameters.insert(name, value);
            }
        }
        _ => return Err(format!("<{name}> is not expected in /{}", path.join("/"))),
    }
    attributes.keys().find(|key| !known.contains(&key.as_str())).map_or(Ok(()), |key| Err(format!("<{name}> has no attribute {key}")))
}

/// Where the tag ends: at the first `>` outside of quotes.
fn tag_len(tag: &str) -> Option<usize> {
    let mut quote = None;
    for (at, char) in tag.char_indices() {
        match (quote, char) {
            (None, '>') => return Some(at),
            (None, '"' | '\'') => quote = Some(char),
            (Some(open), close) if open == close => quote = None,
            _ => {}
        }
    }
    None
}

fn attributes_of(mut text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut attributes = BTreeMap::new();
    loop {
        text = text.trim_start();
        if text.is_empty() {
            return Ok(attributes);
        }
        let (name, after) = text.split_once('=').ok_or_else(|| format!("attribute without value: {text}"))?;
        let quote = after.chars().next().filter(|char| matches!(char, '"' | '\'')).ok_or("an unquoted attribute")?;
        let (value, after) = after[1..].split_once(quote).ok_or("an attribute does not end")?;
        if value.contains('<') || attributes.insert(name.trim().to_owned(), unescape(value)?).is_some() {
            return Err(format!("attribute {name} is malformed or stands twice"));
        }
        text = after;
    }
}

fn unescape(text: &str) -> Result<String, String> {
    let mut pieces = text.split('&');
    let mut plain = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (entity, after) = piece.split_once(';').ok_or("an & that is not escaped")?;
        plain.push(match entity {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            _ => return Err(format!("unknown entity &{entity};")),
        });
        plain.push_str(after);
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_with_parameters_is_understood() {
        let xml = r#"<?xml version="1.0" encoding="UTF-8"?>
            <Response><Connect><Stream url="wss://h/twilio/stream/CA1"><Parameter name="a" value="1 &gt; &quot;0&quot;"/></Stream></Connect></Response>"#;
        let parameters = BTreeMap::from([("a".to_owned(), "1 > \"0\"".to_owned())]);
        let stream = Answer::Stream { url: "wss://h/twilio/stream/CA1".to_owned(), parameters };
        assert_eq!(parse(xml).expect("TwiML"), stream);
        assert_eq!(parse("<Response><Say>Sorry.</Say><Hangup/></Response>").expect("TwiML"), Answer::Apology);
    }

    #[test]
    fn what_twilio_would_not_take_is_refused() {
        let long = format!(r#"<Response><Connect><Stream url="u"><Parameter name="a" value="{}"/></Stream></Connect></Response>"#, "x".repeat(499));
        let bad = [
            "",
            "sorry",
            "<Response>",
            "<Response/><Response/>",
            "<response/>",
            "<Response><connect/></Response>",
            "<Response><Connect></Response></Connect>",
            "<Response>sorry</Response>",
            "<Response><Say>you & me</Say></Response>",
            "<Response><Connect><Stream/></Connect></Response>",
            "<Response><Connect><Stream url=\"u\" track=\"both_tracks\"/></Connect></Response>",
            "<Response><Connect><Stream url=u/></Connect></Response>",
            "<Response><Connect><Stream url=\"u\"><Parameter name=\"a\"/></Stream></Connect></Response>",
            &long,
        ];
        for xml in bad {
            assert!(parse(xml).is_err(), "{xml}");
        }
    }
}
