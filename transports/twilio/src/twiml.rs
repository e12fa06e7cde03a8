//! The documents we answer a call with.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Content type of TwiML.
pub(crate) const CONTENT_TYPE: &str = "text/xml; charset=utf-8";

/// Connects the call to a stream. No verb follows: when we close the stream, the call ends.
pub(crate) fn connect(stream_url: &str, parameters: &BTreeMap<String, String>) -> String {
    let mut xml = format!("{HEAD}<Response><Connect><Stream url=\"{}\">", escape(stream_url));
    for (name, value) in parameters {
        let _ = write!(xml, "<Parameter name=\"{}\" value=\"{}\"/>", escape(name), escape(value));
    }
    xml.push_str("</Stream></Connect></Response>");
    xml
}

/// Sends the call to another host's voice webhook.
pub(crate) fn redirect(url: &str) -> String {
    format!("{HEAD}<Response><Redirect method=\"POST\">{}</Redirect></Response>", escape(url))
}

/// Says that all lines are busy, and hangs up.
pub(crate) fn apology() -> String {
    format!("{HEAD}<Response><Say>We are sorry, all lines are busy. Please call again later.</Say><Hangup/></Response>")
}

const HEAD: &str = r#"<?xml version="1.0" encoding="UTF-8"?>"#;

/// Text for an attribute. Control characters, which XML 1.0 cannot hold, are left out.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            control if control.is_control() => {}
            plain => escaped.push(plain),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_name_cannot_break_out_of_its_attribute() {
        let parameters = BTreeMap::from([("from".to_owned(), "\"/><Dial>'&\u{0}".to_owned())]);
        insta::assert_snapshot!(connect("wss://voice.example.test/twilio/stream/CA1", &parameters), @r#"<?xml version="1.0" encoding="UTF-8"?><Response><Connect><Stream url="wss://voice.example.test/twilio/stream/CA1"><Parameter name="from" value="&quot;/&gt;&lt;Dial&gt;&apos;&amp;"/></Stream></Connect></Response>"#);
    }
}
