//! `/openapi.json`: collected from the handlers as they are routed, so that no route is left out; what every endpoint of
//! a kind answers is added here, and Twilio's routes, which stand in another crate.

use utoipa::openapi::path::{HttpMethod, OperationBuilder, PathItem};
use utoipa::openapi::schema::Components;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, InfoBuilder, OpenApi, OpenApiBuilder, Ref, ResponseBuilder};
use utoipa::{PartialSchema, ToSchema};

use super::refusal::ErrorBody;

/// What every endpoint that costs money may answer besides its own.
const SPENDING: [(&str, &str); 6] = [
    ("400", "a field is wrong: `error.field` says which"),
    ("401", "no key, or a wrong one"),
    ("429", "too many rooms this minute: `Retry-After` says when to come again"),
    ("502", "LiveKit cannot be reached or failed"),
    ("503", "LiveKit is not configured"),
    ("504", "LiveKit did not answer in time"),
];
/// What an operator's endpoint may answer besides its own.
const LOOKING: [(&str, &str); 1] = [("401", "no key, or a wrong one")];

/// One document of the routes that anyone may call, those of the operator, and those that cost money.
pub fn document(open: OpenApi, looking: OpenApi, spending: OpenApi) -> OpenApi {
    let info = InfoBuilder::new()
        .title("voiced")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("Sessions and rooms with a voice agent, and the host that runs them."))
        .build();
    let mut all = OpenApiBuilder::new().info(info).components(Some(Components::new())).build();
    all.merge(open);
    all.merge(guarded(looking, &["operatorKey"], &LOOKING));
    all.merge(guarded(spending, &["apiKey", "bearer"], &SPENDING));
    let components = all.components.get_or_insert_default();
    components.add_security_scheme("operatorKey", SecurityScheme::Http(described("server.api_key")));
    components.add_security_scheme("bearer", SecurityScheme::Http(described("one of http.api_keys, or a JWT signed with http.jwt_secret")));
    components.add_security_scheme("apiKey", SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-API-Key"))));
    components.schemas.insert(ErrorBody::name().into_owned(), ErrorBody::schema());
    let mut schemas = Vec::new();
    ErrorBody::schemas(&mut schemas);
    components.schemas.extend(schemas);
    twilio(&mut all);
    all
}

fn described(description: &str) -> Http {
    let mut scheme = Http::new(HttpAuthScheme::Bearer);
    scheme.description = Some(description.to_owned());
    scheme
}

fn guarded(mut document: OpenApi, schemes: &[&str], answers: &[(&str, &str)]) -> OpenApi {
    for item in document.paths.paths.values_mut() {
        for operation in [&mut item.get, &mut item.post].into_iter().flatten() {
            operation.security = Some(schemes.iter().map(|scheme| SecurityRequirement::new(*scheme, Vec::<String>::new())).collect());
            for (status, description) in answers {
                let own = &mut operation.responses.responses;
                own.entry((*status).to_owned()).or_insert_with(|| ResponseBuilder::new().description(*description).build().into());
            }
            for (status, response) in &mut operation.responses.responses {
                if let utoipa::openapi::RefOr::T(response) = response
                    && status.as_str() >= "400"
                {
                    let body = ContentBuilder::new().schema(Some(Ref::from_schema_name(ErrorBody::name()))).build();
                    response.content.entry("application/json".to_owned()).or_insert(body.into());
                }
            }
        }
    }
    document
}

fn twilio(document: &mut OpenApi) {
    let routes = [
        (HttpMethod::Post, "/twilio/voice", "A call comes in: TwiML that opens its stream. Signed by Twilio.", "200"),
        (HttpMethod::Post, "/twilio/status", "What has become of a call. Signed by Twilio.", "204"),
        (HttpMethod::Get, "/twilio/stream/{call_sid}", "WebSocket: the sound of a call. Signed by Twilio, opened once by a token.", "101"),
    ];
    for (method, path, summary, status) in routes {
        let answer = |status: &str, description: &str| (status.to_owned(), ResponseBuilder::new().description(description).build());
        let (done, refused) = (answer(status, "done"), answer("403", "not Twilio's signature"));
        let operation = OperationBuilder::new().tag("twilio").summary(Some(summary)).response(done.0, done.1).response(refused.0, refused.1).build();
        document.paths.paths.insert(path.to_owned(), PathItem::new(method, operation));
    }
}
