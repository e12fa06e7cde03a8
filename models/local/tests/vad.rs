//! Our Silero kernel against ONNX Runtime, and the calls against one another.

use std::hint::black_box;
use std::time::Instant;

use assert_no_alloc::{AllocDisabler, assert_no_alloc};
use ort::session::Session;
use ort::value::TensorRef;
use voiced_core::model::{VAD_WINDOW, VoiceActivity};
use voiced_models_local::onnx::open_session;
use voiced_models_local::vad::Silero;
use voiced_models_local::weights::{ONNX_RUNTIME, SILERO_VAD, Weights};

#[global_allocator]
static ALLOCATOR: AllocDisabler = AllocDisabler;

type Window = [f32; VAD_WINDOW];

#[test]
fn probabilities_agree_with_onnx_runtime_over_thousands_of_windows_of_carried_state() {
    const CALLS: usize = 37; // two whole groups of lanes and a part
    const WINDOWS: usize = 100;
    let mut silero = silero(CALLS);
    let mut sessions: Vec<Reference> = (0..CALLS).map(|_| Reference::fresh()).collect();
    let mut session = reference_session();
    let slots: Vec<usize> = (0..CALLS).rev().collect();
    let (mut worst, mut lowest, mut highest) = (0f32, 1f32, 0f32);
    let mut voices: Vec<Voice> = (0..CALLS).map(|call| Voice::new(call as u32)).collect();
    for _ in 0..WINDOWS {
        let windows: Vec<Window> = voices.iter_mut().map(Voice::next_window).collect();
        let mut probabilities = [0.0; CALLS];
        silero.run(&slots, &windows, &mut probabilities);
        for ((reference, window), ours) in sessions.iter_mut().zip(&windows).zip(probabilities) {
            let theirs = reference.run(&mut session, window);
            worst = worst.max((ours - theirs).abs());
            (lowest, highest) = (lowest.min(theirs), highest.max(theirs));
        }
    }
    println!("{} windows, {}: differs by {worst:e} at most", CALLS * WINDOWS, silero.instruction_set());
    assert!(worst < 1e-4, "differs by {worst}");
    assert!(lowest < 0.1 && highest > 0.8, "the signal must reach both silence and speech: {lowest}..{highest}");
}

#[test]
fn a_call_hears_the_same_alone_as_among_31_others() {
    let (mut alone, mut together) = (silero(1), silero(32));
    let slots: Vec<usize> = (0..32).collect();
    let mut voices: Vec<Voice> = (0..32).map(Voice::new).collect();
    for _ in 0..50 {
        let windows: Vec<Window> = voices.iter_mut().map(Voice::next_window).collect();
        let (mut one, mut all) = ([0.0], [0.0; 32]);
        alone.run(&[0], &windows[21..22], &mut one);
        together.run(&slots, &windows, &mut all);
        assert_eq!(one[0].to_bits(), all[21].to_bits());
    }
}

#[test]
fn calls_that_join_and_leave_never_disturb_a_neighbour() {
    let (mut alone, mut together) = (silero(40), silero(40));
    let mut voices: Vec<Voice> = (0..40).map(Voice::new).collect();
    for turn in 0..60 {
        let windows: Vec<Window> = voices.iter_mut().map(Voice::next_window).collect();
        let here: Vec<usize> = (0..40).filter(|call| *call == 21 || (turn / 7 + call) % 5 > 1).collect();
        let heard: Vec<Window> = here.iter().map(|call| windows[*call]).collect();
        let (mut one, mut all) = ([0.0], vec![0.0; here.len()]);
        alone.run(&[21], &windows[21..22], &mut one);
        together.run(&here, &heard, &mut all);
        let place = here.iter().position(|call| *call == 21).unwrap();
        assert_eq!(one[0].to_bits(), all[place].to_bits(), "window {turn}");
        together.reset(turn % 20);
    }
}

#[test]
fn a_slot_that_was_reset_hears_as_a_new_one() {
    let mut silero = silero(2);
    let mut voice = Voice::new(1);
    let mut probability = [0.0];
    for _ in 0..30 {
        silero.run(&[0], &[voice.next_window()], &mut probability);
    }
    silero.reset(0);
    let window = voice.next_window();
    let mut both = [0.0; 2];
    silero.run(&[0, 1], &[window, window], &mut both);
    assert_eq!(both[0].to_bits(), both[1].to_bits());
}

#[test]
fn a_run_does_not_allocate() {
    let mut silero = silero(20);
    let slots: Vec<usize> = (0..20).collect();
    let windows = vec![[0.1; VAD_WINDOW]; 20];
    let mut probabilities = [0.0; 20];
    assert_no_alloc(|| {
        silero.run(&slots, &windows, &mut probabilities);
        silero.reset(3);
    });
}

#[test]
fn cost_per_call_and_window_is_printed() {
    for calls in [1, 8, 16, 32, 128] {
        let mut silero = silero(calls);
        let slots: Vec<usize> = (0..calls).collect();
        let windows: Vec<Window> = (0..calls).map(|call| Voice::new(call as u32).next_window()).collect();
        let mut probabilities = vec![0.0; calls];
        let seconds = best_of(30, || silero.run(&slots, &windows, black_box(&mut probabilities)));
        println!("{calls:4} calls, {}: {:6.2} µs a call", silero.instruction_set(), seconds * 1e6 / calls as f64);
    }
    let (mut session, mut reference, window) = (reference_session(), Reference::fresh(), Voice::new(0).next_window());
    let seconds = best_of(30, || {
        black_box(reference.run(&mut session, &window));
    });
    println!("   1 call,  ONNX Runtime: {:6.2} µs a call", seconds * 1e6);
}

fn best_of(runs: usize, mut work: impl FnMut()) -> f64 {
    let time = |work: &mut dyn FnMut()| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    };
    (0..runs).map(|_| time(&mut work)).fold(f64::INFINITY, f64::min)
}

fn weights(name: &str) -> std::path::PathBuf {
    Weights::at(Weights::default_dir()).path(name).unwrap_or_else(|error| panic!("{error}"))
}

fn silero(slots: usize) -> Silero {
    Silero::load(&weights(SILERO_VAD), slots).unwrap()
}

fn reference_session() -> Session {
    open_session(&weights(ONNX_RUNTIME), &weights(SILERO_VAD)).unwrap()
}

/// One call's state as ONNX Runtime takes it.
struct Reference {
    hidden: Vec<f32>,
    cell: Vec<f32>,
    context: [f32; 64],
}

impl Reference {
    fn fresh() -> Self {
        Self { hidden: vec![0.0; 128], cell: vec![0.0; 128], context: [0.0; 64] }
    }

    fn run(&mut self, session: &mut Session, window: &Window) -> f32 {
        let input: Vec<f32> = self.context.iter().chain(window).copied().collect();
        self.context.copy_from_slice(&window[VAD_WINDOW - 64..]);
        let input = TensorRef::from_array_view(([1usize, 576], input.as_slice())).unwrap();
        let hidden = TensorRef::from_array_view(([1usize, 1, 128], self.hidden.as_slice())).unwrap();
        let cell = TensorRef::from_array_view(([1usize, 1, 128], self.cell.as_slice())).unwrap();
        let outputs = session.run(ort::inputs!["input" => input, "h" => hidden, "c" => cell]).unwrap();
        let values = |name: &str| outputs[name].try_extract_tensor::<f32>().unwrap().1.to_vec();
        let probability = values("speech_probs")[0];
        let (hidden, cell) = (values("hn"), values("cn"));
        drop(outputs);
        (self.hidden, self.cell) = (hidden, cell);
        probability
    }
}

/// A buzzing larynx through three moving formants, in syllables with pauses, over a little noise: near enough to
/// speech for the network to be sure of it.
struct Voice {
    sample: u32,
    seed: u32,
    phase: f32,
    formants: [[f32; 2]; 3],
}

impl Voice {
    fn new(seed: u32) -> Self {
        Self { sample: seed * 5_000, seed: seed + 1, phase: 0.0, formants: [[0.0; 2]; 3] }
    }

    fn next_window(&mut self) -> Window {
        std::array::from_fn(|_| self.next_sample())
    }

    fn next_sample(&mut self) -> f32 {
        let seconds = self.sample as f32 / 16_000.0;
        self.sample += 1;
        self.seed = self.seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let noise = (self.seed >> 8) as f32 / 8_388_608.0 - 1.0;
        let talking = seconds % 2.0 < 1.2;
        let pitch = 120.0 + 25.0 * (seconds * 5.0).sin();
        self.phase = (self.phase + pitch / 16_000.0) % 1.0;
        let syllable = if talking { (seconds * 12.0).sin().abs() } else { 0.0 };
        let mut sound = (1.0 - 2.0 * self.phase + 0.05 * noise) * syllable;
        let vowel = (seconds * 7.0).sin();
        let centres = [500.0 + 200.0 * vowel, 1_500.0 - 400.0 * vowel, 2_500.0 + 100.0 * vowel];
        for ([last, before], (centre, width)) in self.formants.iter_mut().zip(centres.into_iter().zip([80.0, 100.0, 140.0])) {
            let radius = (-std::f32::consts::PI * width / 16_000.0_f32).exp();
            let turn = (std::f32::consts::TAU * centre / 16_000.0).cos();
            let out = sound * (1.0 - radius) + 2.0 * radius * turn * *last - radius * radius * *before;
            (*before, *last) = (*last, out);
            sound = out * 2.0;
        }
        (sound * 0.5 + 0.001 * noise).clamp(-1.0, 1.0)
    }
}
