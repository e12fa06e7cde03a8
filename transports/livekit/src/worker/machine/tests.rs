use super::*;
use proto::JobStatus::{JsFailed, JsRunning, JsSuccess};
use proto::WorkerStatus::WsFull;

const FREE: Host = Host { load: 0.25, has_room: true };
const BUSY: Host = Host { load: 0.9, has_room: false };

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn machine(jobs_max: usize) -> Machine {
    let settings = WorkerSettings {
        url: "ws://livekit.test:7880".parse().unwrap(),
        keys: crate::token::Keys::new("key", "secret"),
        agent_name: "voiced".to_owned(),
        display_name: "Ana".to_owned(),
        jobs_max,
    };
    Machine::new(&settings, Arc::default())
}

fn registered(jobs_max: usize) -> Machine {
    let mut machine = machine(jobs_max);
    machine.apply(at(0), FREE, Input::Up);
    machine.apply(at(0), FREE, welcome());
    machine
}

fn from_server(message: FromServer) -> Input {
    Input::Message(Box::new(message))
}

fn welcome() -> Input {
    from_server(FromServer::Register(proto::RegisterWorkerResponse { worker_id: "AW_1".to_owned(), ..Default::default() }))
}

fn job(id: &str) -> proto::Job {
    let room = proto::Room { name: "room-1".to_owned(), sid: "RM_1".to_owned(), ..Default::default() };
    proto::Job { id: id.to_owned(), metadata: "{}".to_owned(), room: Some(room), ..Default::default() }
}

fn offer(id: &str) -> Input {
    from_server(FromServer::Availability(proto::AvailabilityRequest { job: Some(job(id)), resuming: false }))
}

fn assign(id: &str) -> Input {
    from_server(FromServer::Assignment(proto::JobAssignment { job: Some(job(id)), url: None, token: "t".to_owned() }))
}

fn terminate(id: &str) -> Input {
    from_server(FromServer::Termination(proto::JobTermination { job_id: id.to_owned() }))
}

fn ended(id: &str, error: Option<&str>) -> Input {
    Input::Ended { job_id: id.to_owned(), error: error.map(str::to_owned) }
}

/// What was done, in words.
fn words(out: &[Output]) -> Vec<String> {
    out.iter()
        .map(|output| match output {
            Output::Send(message) => sent(message),
            Output::Ping => "ping".to_owned(),
            Output::Hangup(why) => format!("hang up: {why}"),
            Output::Registered { worker_id } => format!("registered {worker_id}"),
            Output::Start(job) => format!("start {} in {} as {}", job.id, job.room, job.identity),
            Output::Terminate(job_id) => format!("terminate {job_id}"),
        })
        .collect()
}

fn sent(message: &ToServer) -> String {
    match message {
        ToServer::Register(request) => format!("register {}", request.agent_name),
        ToServer::Availability(answer) => format!("{} {}", if answer.available { "yes" } else { "no" }, answer.job_id),
        ToServer::UpdateWorker(status) => {
            let full = if status.status == Some(WsFull as i32) { "full" } else { "available" };
            format!("{full} {} jobs load {}", status.job_count, status.load)
        }
        ToServer::UpdateJob(update) => {
            let status = [(JsRunning, "running"), (JsSuccess, "success"), (JsFailed, "failed")];
            let name = status.iter().find(|(status, _)| *status as i32 == update.status).map_or("?", |(_, name)| name);
            format!("{name} {} {}", update.job_id, update.error).trim_end().to_owned()
        }
        other => format!("{other:?}"),
    }
}

fn step(machine: &mut Machine, now: u64, host: Host, input: Input) -> Vec<String> {
    words(&machine.apply(at(now), host, input))
}

#[test]
fn a_job_is_offered_promised_run_and_reported() {
    let mut machine = machine(2);
    assert_eq!(step(&mut machine, 0, FREE, Input::Up), ["register voiced"]);
    assert_eq!(step(&mut machine, 1, FREE, welcome()), ["registered AW_1", "available 0 jobs load 0.25"]);
    assert_eq!(step(&mut machine, 10, FREE, offer("J1")), ["yes J1"]);
    assert_eq!(machine.promised(), 1);
    assert_eq!(step(&mut machine, 11, FREE, assign("J1")), ["start J1 in room-1 as agent-J1", "running J1"]);
    assert_eq!(step(&mut machine, 12, FREE, assign("J1")), Vec::<String>::new(), "an assignment told twice starts one job");
    assert_eq!(step(&mut machine, 20, FREE, terminate("J1")), ["terminate J1"]);
    assert_eq!(step(&mut machine, 30, FREE, ended("J1", None)), ["success J1"]);
    assert_eq!(step(&mut machine, 31, FREE, ended("J1", None)), Vec::<String>::new());
    assert_eq!(step(&mut machine, 40, FREE, offer("J2")), ["yes J2"]);
    step(&mut machine, 41, FREE, assign("J2"));
    assert_eq!(step(&mut machine, 50, FREE, ended("J2", Some("no sound"))), ["failed J2 no sound"]);
}

#[test]
fn the_status_is_told_every_2500_ms_and_at_once_when_it_changes() {
    let mut machine = registered(1);
    assert_eq!(step(&mut machine, 2_499, FREE, Input::Tick), Vec::<String>::new());
    assert_eq!(step(&mut machine, 2_500, FREE, Input::Tick), ["available 0 jobs load 0.25"]);
    assert_eq!(step(&mut machine, 2_600, FREE, offer("J1")), ["yes J1", "full 1 jobs load 0.25"]);
    assert_eq!(step(&mut machine, 2_700, FREE, offer("J2")), ["no J2"]);
    step(&mut machine, 2_710, FREE, assign("J1"));
    assert_eq!(step(&mut machine, 2_800, FREE, ended("J1", None)), ["success J1", "available 0 jobs load 0.25"]);
    assert_eq!(step(&mut machine, 2_900, BUSY, Input::Tick), ["full 0 jobs load 0.9"]);
    assert_eq!(step(&mut machine, 3_000, BUSY, offer("J3")), ["no J3"]);
    assert_eq!(step(&mut machine, 9_000, Host { load: f32::NAN, has_room: false }, Input::Tick), ["full 0 jobs load 1"]);
}

#[test]
fn a_promise_whose_assignment_does_not_come_frees_its_place() {
    let mut machine = registered(1);
    step(&mut machine, 0, FREE, offer("J1"));
    assert_eq!(step(&mut machine, 7_499, FREE, Input::Tick), ["full 1 jobs load 0.25"]);
    assert_eq!(step(&mut machine, 7_500, FREE, Input::Tick), ["available 0 jobs load 0.25"]);
    assert_eq!(step(&mut machine, 7_600, FREE, offer("J2")), ["yes J2", "full 1 jobs load 0.25"]);
    assert_eq!(step(&mut machine, 7_700, FREE, assign("J1")), ["failed J1 the assignment came too late"]);
    assert_eq!(machine.counters.jobs_unassigned.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[test]
fn a_new_registration_hears_of_running_jobs_and_promises_are_void() {
    let mut machine = registered(5);
    step(&mut machine, 10, FREE, offer("J1"));
    step(&mut machine, 11, FREE, assign("J1"));
    step(&mut machine, 12, FREE, offer("J2"));
    assert_eq!(step(&mut machine, 20, FREE, Input::Down), Vec::<String>::new());
    assert_eq!(machine.promised(), 0);
    assert_eq!(step(&mut machine, 30, FREE, ended("J9", None)), Vec::<String>::new());
    assert_eq!(step(&mut machine, 40, FREE, Input::Up), ["register voiced"]);
    assert_eq!(step(&mut machine, 50, FREE, offer("J3")), Vec::<String>::new(), "nothing is answered before the registration");
    assert_eq!(step(&mut machine, 60, FREE, welcome()), ["registered AW_1", "running J1", "available 1 jobs load 0.25"]);
}

#[test]
fn a_job_that_ended_while_the_server_was_away_is_reported_once_it_is_back() {
    let mut machine = registered(5);
    for id in ["J1", "J2", "J3"] {
        step(&mut machine, 10, FREE, offer(id));
        step(&mut machine, 11, FREE, assign(id));
    }
    step(&mut machine, 20, FREE, Input::Down);
    assert_eq!(step(&mut machine, 30, FREE, ended("J1", None)), Vec::<String>::new());
    step(&mut machine, 40, FREE, Input::Up);
    assert_eq!(step(&mut machine, 45, FREE, ended("J2", Some("no sound"))), Vec::<String>::new(), "not before the registration");
    let told = ["registered AW_1", "running J3", "success J1", "failed J2 no sound", "available 1 jobs load 0.25"];
    assert_eq!(step(&mut machine, 60, FREE, welcome()), told);
    step(&mut machine, 70, FREE, Input::Down);
    step(&mut machine, 80, FREE, Input::Up);
    assert_eq!(step(&mut machine, 90, FREE, welcome()), ["registered AW_1", "running J3", "available 1 jobs load 0.25"], "told once");
}

#[test]
fn draining_takes_nothing_and_ends_with_the_last_job() {
    let mut machine = registered(5);
    step(&mut machine, 10, FREE, offer("J1"));
    step(&mut machine, 11, FREE, assign("J1"));
    assert_eq!(step(&mut machine, 20, FREE, Input::Drain), ["full 1 jobs load 0.25"]);
    assert_eq!(step(&mut machine, 21, FREE, offer("J2")), ["no J2"]);
    assert!(!machine.is_drained());
    step(&mut machine, 30, FREE, ended("J1", None));
    assert!(machine.is_drained());
}

#[test]
fn a_silent_server_is_tested_and_then_left() {
    let mut machine = registered(1);
    assert_eq!(step(&mut machine, 10_000, FREE, Input::Tick), ["ping", "available 0 jobs load 0.25"]);
    step(&mut machine, 10_001, FREE, Input::Heard);
    assert_eq!(step(&mut machine, 35_000, FREE, Input::Tick)[0], "ping");
    assert_eq!(step(&mut machine, 35_001, FREE, Input::Tick), ["hang up: LiveKit has stopped answering"]);
    let mut machine = super::tests::machine(1);
    step(&mut machine, 0, FREE, Input::Up);
    assert_eq!(step(&mut machine, 10_000, FREE, Input::Tick), ["hang up: LiveKit did not confirm the registration"]);
}

#[test]
fn what_makes_no_sense_is_passed_over() {
    let mut machine = registered(1);
    let nothing = [
        from_server(FromServer::Availability(proto::AvailabilityRequest { job: None, resuming: true })),
        from_server(FromServer::Assignment(proto::JobAssignment::default())),
        terminate("J7"),
        welcome(),
    ];
    for input in nothing {
        assert_eq!(step(&mut machine, 10, FREE, input), Vec::<String>::new());
    }
    let publisher = proto::Job { r#type: proto::JobType::JtPublisher as i32, ..job("J1") };
    let offer = FromServer::Availability(proto::AvailabilityRequest { job: Some(publisher), resuming: false });
    assert_eq!(step(&mut machine, 10, FREE, from_server(offer)), ["no J1"]);
}
