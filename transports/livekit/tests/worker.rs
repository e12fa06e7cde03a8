//! The agent worker against a real server, and against a double for what a real server does not do.

mod agency;
mod double;
mod server;

use agency::{Agency, hire, is_registered};
use double::Double;
use livekit_protocol::Job;
use server::{Server, made_up_keys, until};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use voiced_livekit::api::DispatchInfo;
use voiced_livekit::token::{AgentDispatch, Keys, ParticipantToken, Secret};
use voiced_livekit::worker::{Worker, WorkerStatus};

fn voiced(metadata: &str) -> AgentDispatch {
    AgentDispatch { agent_name: "voiced".to_owned(), metadata: metadata.to_owned() }
}

async fn registered(worker: &Worker) {
    until("the registration", async || is_registered(worker)).await;
}

fn counted(worker: &Worker, name: &str) -> u64 {
    worker.counters().read().into_iter().find(|(counter, _)| *counter == name).map_or(0, |(_, count)| count)
}

/// Enters a room without any media.
async fn join(server: &Server, token: &Secret) -> impl Sized {
    let url = format!("{}rtc?auto_subscribe=1&protocol=16&access_token={}", server.url(), token.expose());
    tokio_tungstenite::connect_async(url).await.unwrap()
}

#[tokio::test]
async fn a_dispatch_reaches_the_worker_with_metadata_and_the_rooms_end_terminates_the_job() {
    let Some(server) = Server::start(None).await else { return };
    let agency = Arc::new(Agency::default());
    let worker = hire(server.url(), server.keys(), &agency, 10);
    registered(&worker).await;
    let api = server.api();
    let dispatch_id = api.create_dispatch("room-1", &voiced(r#"{"greeting":"Hello!"}"#)).await.unwrap();
    until("the job", async || agency.job("room-1").is_some()).await;
    let job = agency.job("room-1").unwrap();
    assert_eq!((job.metadata.as_str(), job.dispatch_id.as_str()), (r#"{"greeting":"Hello!"}"#, dispatch_id.as_str()));
    assert_eq!((job.identity.as_str(), job.name.as_str(), &job.url), (format!("agent-{}", job.id).as_str(), "Ana", &server.url()));
    assert!(job.room_sid.starts_with("RM_") && !job.token.expose().is_empty() && job.participant.is_none());
    assert!(!format!("{job:?}").contains(job.token.expose()));
    // a room's end is told to an agent that is in and whose job the server has noted, which it does within a second
    let _in_the_room = join(&server, &job.token).await;
    let is_job = |noted: &Job| noted.id == job.id && noted.state.as_ref().is_some_and(|state| state.participant_identity == job.identity);
    let is_noted = |dispatch: DispatchInfo| dispatch.state.is_some_and(|state| state.created_at > 0 && state.jobs.iter().any(is_job));
    until("the server to note the job", async || api.list_dispatch("room-1").await.unwrap().into_iter().any(is_noted)).await;
    until("the agent to be in", async || !api.list_participants("room-1").await.unwrap().is_empty()).await;
    api.delete_room("room-1").await.unwrap();
    until("the termination", async || *agency.terminated.lock().unwrap() == [job.id.clone()]).await;
    until("the job's end", async || counted(&worker, "jobs_succeeded") == 1).await;
    assert_eq!((counted(&worker, "jobs_accepted"), counted(&worker, "jobs_terminated")), (1, 1));
}

#[tokio::test]
async fn a_dispatch_called_back_terminates_its_job() {
    let Some(server) = Server::start(None).await else { return };
    let agency = Arc::new(Agency::default());
    let worker = hire(server.url(), server.keys(), &agency, 10);
    registered(&worker).await;
    let api = server.api();
    let dispatch_id = api.create_dispatch("room-1", &voiced("")).await.unwrap();
    until("the job", async || agency.job("room-1").is_some()).await;
    api.delete_dispatch("room-1", &dispatch_id).await.unwrap();
    until("the termination", async || agency.terminated.lock().unwrap().len() == 1).await;
    until("the job's end", async || counted(&worker, "jobs_succeeded") == 1).await;
}

#[tokio::test]
async fn a_token_that_names_the_agent_dispatches_it() {
    let Some(server) = Server::start(None).await else { return };
    let agency = Arc::new(Agency::default());
    let worker = hire(server.url(), server.keys(), &agency, 10);
    registered(&worker).await;
    let mut caller = ParticipantToken::new("room-2", "caller");
    caller.agents.push(voiced("from the token"));
    let token = server.keys().participant_token(&caller).unwrap();
    let _in_the_room = join(&server, &token).await;
    until("the job", async || agency.job("room-2").is_some()).await;
    assert_eq!(agency.job("room-2").unwrap().metadata, "from the token");
}

#[tokio::test]
async fn jobs_go_to_the_worker_that_has_room() {
    let Some(server) = Server::start(None).await else { return };
    let [free, loaded, full, draining] = [(); 4].map(|()| Arc::new(Agency::default()));
    loaded.load_percent.store(100, Ordering::Relaxed);
    full.full.store(true, Ordering::Relaxed);
    let workers = [&free, &loaded, &full, &draining].map(|agency| hire(server.url(), server.keys(), agency, 100));
    for worker in &workers {
        registered(worker).await;
    }
    workers[3].stop_taking(); // without a job it closes
    until("the drained worker to close", async || *workers[3].status().borrow() == WorkerStatus::Closed).await;
    let api = server.api();
    for room in 0..12 {
        api.create_dispatch(&format!("room-{room}"), &voiced("")).await.unwrap();
    }
    until("twelve jobs", async || free.rooms().len() == 12).await;
    let others: Vec<_> = [&loaded, &full, &draining].iter().flat_map(|agency| agency.rooms()).collect();
    assert!(others.is_empty(), "{others:?}");
}

#[tokio::test]
async fn a_draining_worker_ends_its_jobs_and_gets_no_other() {
    let Some(server) = Server::start(None).await else { return };
    let agency = Arc::new(Agency::default());
    let worker = hire(server.url(), server.keys(), &agency, 10);
    registered(&worker).await;
    let api = server.api();
    api.create_dispatch("room-1", &voiced("")).await.unwrap();
    until("the job", async || agency.job("room-1").is_some()).await;
    let (counters, status) = (worker.counters(), worker.status());
    worker.stop_taking();
    let drained = tokio::spawn(worker.drain(Duration::from_secs(15)));
    let other = Arc::new(Agency::default());
    let other_worker = hire(server.url(), server.keys(), &other, 10);
    registered(&other_worker).await;
    for room in 2..8 {
        api.create_dispatch(&format!("room-{room}"), &voiced("")).await.unwrap();
    }
    until("the other worker to have the other jobs", async || other.rooms().len() == 6).await;
    assert_eq!(*status.borrow(), WorkerStatus::Registered, "its job is not over");
    let (_, end) = agency.running.lock().unwrap().pop_first().unwrap();
    end.succeeded();
    assert!(drained.await.unwrap(), "all jobs were over");
    assert_eq!(agency.rooms(), ["room-1"]);
    assert_eq!((status.borrow().clone(), counters.connected.load(Ordering::Relaxed)), (WorkerStatus::Closed, false));
}

#[tokio::test]
async fn after_a_restart_of_the_server_the_worker_is_back_and_its_job_runs_on() {
    let Some(mut server) = Server::start(None).await else { return };
    let agency = Arc::new(Agency::default());
    let worker = hire(server.url(), server.keys(), &agency, 10);
    registered(&worker).await;
    server.api().create_dispatch("before", &voiced("")).await.unwrap();
    until("the job", async || agency.job("before").is_some()).await;
    server.kill();
    until("the loss", async || matches!(*worker.status().borrow(), WorkerStatus::Connecting(Some(_)))).await;
    server.start_again().await;
    registered(&worker).await;
    assert_eq!((counted(&worker, "registrations"), agency.running.lock().unwrap().len()), (2, 1));
    server.api().create_dispatch("after", &voiced("")).await.unwrap();
    until("a job after the restart", async || agency.job("after").is_some()).await;
}

#[tokio::test]
async fn a_wrong_key_is_told_and_is_no_secret() {
    let Some(server) = Server::start(None).await else { return };
    let agency = Arc::new(Agency::default());
    let worker = hire(server.url(), Keys::new(server.0.api_key(), "not-the-secret-of-this-server-at-all"), &agency, 10);
    until("the refusal", async || matches!(*worker.status().borrow(), WorkerStatus::Refused(_))).await;
    let told = format!("{:?}", worker.status().borrow().clone());
    assert!(told.contains("LIVEKIT_API_KEY") && told.contains("127.0.0.1") && !told.contains("not-the-secret"), "{told}");
}

#[tokio::test]
async fn an_address_without_livekit_is_told() {
    let agency = Arc::new(Agency::default());
    let nothing = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let no_tls = Double::start().await;
    for url in [format!("ws://{nothing}"), no_tls.url().as_str().replace("http", "wss")] {
        let worker = hire(url.parse().unwrap(), made_up_keys(), &agency, 10);
        until("the error", async || matches!(&*worker.status().borrow(), WorkerStatus::Connecting(Some(error)) if error.contains("LIVEKIT_URL"))).await;
    }
    let worker = hire(no_tls.url().join("elsewhere").unwrap(), made_up_keys(), &agency, 10);
    until("the refusal", async || matches!(&*worker.status().borrow(), WorkerStatus::Refused(error) if error.contains("HTTP 404"))).await;
}

#[tokio::test]
async fn the_worker_outlives_garbage_and_a_server_that_hangs_up() {
    let double = Double::start().await;
    let agency = Arc::new(Agency::default());
    let worker = hire(double.url(), made_up_keys(), &agency, 1);
    registered(&worker).await;
    double.send_garbage();
    until("the garbage", async || counted(&worker, "bad_messages") == 2).await;
    assert!(is_registered(&worker), "garbage ends nothing");
    double.offer("J1");
    until("our yes", async || double.heard("yes J1")).await;
    until("the place to be taken", async || double.heard("full")).await;
    double.assign("J1");
    until("the job", async || agency.job("room-of-J1").is_some()).await;
    double.hang_up();
    until("the next registration", async || counted(&worker, "registrations") == 2).await;
    until("the running job to be told again", async || double.heard_times("running J1") == 2).await;
    double.offer("J2");
    until("our no", async || double.heard("no J2")).await;
    drop(agency.running.lock().unwrap().pop_first());
    until("the failure", async || double.heard("failed J1 the job was dropped")).await;
    until("the place to be free", async || double.heard_last("available")).await;
}
