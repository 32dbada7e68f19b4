"""The synthetic chorus: songs without clicks, species that differ, files broken as they claim."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from birdinv.data.songs import SPECIES, song
from birdinv.data.synthetic import Chorus, recording, write_chorus

SECONDS = 1.0
DAMAGED = {
    "empty.wav",
    "header-only.wav",
    "text.wav",
    "truncated.wav",
    "damaged.flac",
    "truncated.mp3",
    "nan.wav",
}


def stream(*key: int) -> np.random.Generator:
    return np.random.default_rng(key)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def good_files(folder: Path) -> list[Path]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [path for path in files if path.name not in DAMAGED]


@pytest.fixture(scope="module")
def chorus(tmp_path_factory: pytest.TempPathFactory) -> Chorus:
    folder = tmp_path_factory.mktemp("chorus")
    return write_chorus(folder, recordings_per_species=2, unlabelled=5, seconds=SECONDS)


# ---------------------------------------------------------------- songs


@pytest.mark.parametrize("species", SPECIES)
def test_a_song_is_a_phrase_that_starts_and_ends_in_silence(species: str) -> None:
    for key in range(20):
        phrase = song(species, stream(key))
        assert phrase.dtype == np.float32 and phrase.ndim == 1
        assert 0.25 <= len(phrase) / 22050 <= 2.3
        assert np.isfinite(phrase).all() and np.abs(phrase).max() == pytest.approx(0.9, abs=1e-6)
        assert np.abs(phrase[[0, -1]]).max() < 1e-3
        np.testing.assert_array_equal(phrase, song(species, stream(key)))


def share_above(sound: NDArray[np.float32], limit_hz: float, sample_rate: int) -> float:
    """Share of the energy above `limit_hz`, in dB."""
    power = np.abs(np.fft.rfft(sound.astype(float))) ** 2
    above = np.fft.rfftfreq(len(sound), 1 / sample_rate) > limit_hz
    return float(10 * np.log10(power[above].sum() / power.sum()))


@pytest.mark.parametrize("species", SPECIES)
def test_songs_have_no_clicks(species: str) -> None:
    # No bird here sings above 12 kHz, so what lies above 14 kHz would be clicks.
    for key in range(10):
        phrase = song(species, stream(key), sample_rate=48000)
        assert share_above(phrase, 14000, 48000) < -60
        loud = int(np.abs(phrase).argmax())
        assert share_above(phrase[:loud], 14000, 48000) > -60  # the same song, cut off


@pytest.mark.parametrize("species", SPECIES)
def test_individuals_of_a_species_differ_in_pitch_and_length(species: str) -> None:
    phrases = [song(species, stream(key)) for key in range(20)]
    loudest_hz = [np.abs(np.fft.rfft(p)).argmax() * 22050 / len(p) for p in phrases]
    assert max(loudest_hz) > 1.5 * min(loudest_hz)
    assert max(map(len, phrases)) > 1.3 * min(map(len, phrases))


@pytest.mark.parametrize("species", SPECIES)
def test_the_sample_rate_changes_neither_pitch_nor_length(species: str) -> None:
    low = song(species, stream(3), sample_rate=32000)
    high = song(species, stream(3), sample_rate=96000)[::3]
    assert abs(len(low) - len(high)) <= 1
    spectra = [np.abs(np.fft.rfft(sound, 2**17)) for sound in (low, high)]
    assert np.corrcoef(spectra)[0, 1] > 0.99


# ---------------------------------------------------------------- recordings


@pytest.mark.parametrize("seconds", [0.01, 0.5, 1.00003, 4.0])
@pytest.mark.parametrize("sample_rate", [16000, 22050, 48000])
def test_recordings_have_the_length_asked_for_and_do_not_clip(
    seconds: float, sample_rate: int
) -> None:
    for species in ((), ("buzzer",), SPECIES):
        sound = recording(species, stream(1), seconds=seconds, sample_rate=sample_rate)
        assert sound.dtype == np.float32 and sound.shape == (round(seconds * sample_rate),)
        assert np.isfinite(sound).all() and 0 < np.abs(sound).max() < 1


def test_a_crowd_of_singers_does_not_clip() -> None:
    assert np.abs(recording(SPECIES * 10, stream(0), seconds=1)).max() < 1


def test_recordings_range_from_near_to_far_and_from_calm_to_windy() -> None:
    def levels_db(species: tuple[str, ...]) -> NDArray[np.float64]:
        sounds = [recording(species, stream(2, key), seconds=1) for key in range(30)]
        return np.array([20 * np.log10(sound.std()) for sound in sounds])

    assert np.ptp(levels_db(("whistler",))) > 12
    assert np.ptp(levels_db(())) > 15
    assert levels_db(()).max() < -28


def test_singers_pause() -> None:
    sound = recording(("whistler",), stream(5), seconds=8)
    frames = np.diff(sound[: len(sound) // 441 * 441]).astype(float)  # less of the low wind
    levels = np.array([part.std() for part in np.array_split(frames, 400)])  # of 20 ms
    silent = levels < 0.25 * levels.max()
    assert 0.2 < silent.mean() < 0.9


def features(sound: NDArray[np.float32]) -> NDArray[np.float64]:
    """Levels in 16 bands above the wind, and how fast they change: nothing learned."""
    frames = np.lib.stride_tricks.sliding_window_view(sound, 512)[::128] * np.hanning(512)
    power = np.abs(np.fft.rfft(frames)) ** 2
    edges = np.geomspace(10, 250, 17).astype(int)
    bands = np.log10(np.add.reduceat(power, edges, axis=1)[:, :16] + 1e-12)
    bands -= np.median(bands, axis=0)
    loud, restless = np.percentile(bands, 90, axis=0), np.abs(np.diff(bands, axis=0)).mean(axis=0)
    return np.concatenate([loud / np.linalg.norm(loud), restless / np.linalg.norm(restless)])


def test_species_are_told_apart_by_their_spectra_but_not_trivially() -> None:
    def sample(part: int, count: int) -> NDArray[np.float64]:
        return np.array(
            [
                [features(recording((name,), stream(part, k, i), seconds=2)) for i in range(count)]
                for k, name in enumerate(SPECIES)
            ]
        )

    known, heard = sample(0, 16), sample(1, 8)
    distances = np.linalg.norm(heard[:, :, None, None] - known, axis=-1)
    nearest = distances.min(axis=-1).argmin(axis=-1)  # [species, recording]: nearest neighbour
    correct = (nearest == np.arange(len(SPECIES))[:, None]).mean()
    assert 0.5 < correct < 1  # chance: 1/6


def test_an_unknown_species_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'dodo'; choose one of whistler, triller"):
        song("dodo", stream(0))
    with pytest.raises(ValueError, match="'dodo'"):
        recording(("whistler", "dodo"), stream(0), seconds=1)


@pytest.mark.parametrize("seconds", [0, -1, 1e-9])
def test_a_recording_without_samples_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        recording((), stream(0), seconds=seconds)


# ---------------------------------------------------------------- files


def test_every_class_has_good_recordings_of_full_length(chorus: Chorus) -> None:
    classes = sorted(path.name for path in chorus.labelled.iterdir())
    assert classes == sorted((*SPECIES, "noise"))
    for label in classes:
        files = good_files(chorus.labelled / label)
        assert len(files) == (3 if label == "noise" else 2)
        assert [path.stem for path in files] == [f"{label}-{i + 1:02d}" for i in range(len(files))]
    assert len(good_files(chorus.unlabelled)) == len(good_files(chorus.field)) == 5


def test_good_files_read_in_full(chorus: Chorus) -> None:
    for folder, seconds in (
        (chorus.labelled, SECONDS),
        (chorus.unlabelled, SECONDS),
        (chorus.field, SECONDS + 4),
    ):
        for path in good_files(folder):
            sound, rate = soundfile.read(path, always_2d=True)
            assert len(sound) == round(seconds * rate) == soundfile.info(path).frames, path
            assert np.isfinite(sound).all() and np.abs(sound).max() < 1, path
            assert sound.std() > 1e-4, path


def test_formats_rates_and_names_are_mixed(chorus: Chorus) -> None:
    infos = {path: soundfile.info(path) for path in good_files(chorus.unlabelled)}
    kinds = {(info.format, info.subtype) for info in infos.values()}
    assert {("FLAC", "PCM_16"), ("MP3", "MPEG_LAYER_III"), ("AIFF", "PCM_16")} < kinds
    assert {subtype for format_, subtype in kinds if format_.startswith("WAV")} == {
        "PCM_16",
        "PCM_24",
    }
    assert {info.samplerate for info in infos.values()} == {22050, 32000, 44100, 48000}
    stereo = soundfile.info(chorus.field / "wood/stereo-48k.wav")
    assert (stereo.channels, stereo.samplerate) == (2, 48000)
    assert any(not path.name.isascii() for path in good_files(chorus.field))


def test_names_of_unlabelled_files_do_not_tell_the_species(chorus: Chorus) -> None:
    for path in chorus.unlabelled.rglob("*"):
        assert not any(name in path.name for name in SPECIES)


def test_the_same_seed_writes_the_same_bytes(chorus: Chorus, tmp_path: Path) -> None:
    again = write_chorus(tmp_path, recordings_per_species=2, unlabelled=5, seconds=SECONDS)
    first, second = contents(chorus.field.parent), contents(again.field.parent)
    assert first == second
    # libsndfile puts the clock into these two; within one second the comparison would not notice.
    assert not any(data[:4] == b"OggS" or b"PEAK" in data[:200] for data in first.values())


def test_asking_for_more_of_one_kind_changes_no_other_file(chorus: Chorus, tmp_path: Path) -> None:
    write_chorus(tmp_path, recordings_per_species=6, unlabelled=1, seconds=SECONDS)
    first, second = contents(chorus.field.parent), contents(tmp_path)
    common = first.keys() & second.keys()
    assert all(first[name] == second[name] for name in common)
    assert {name.split("/")[0] for name in first.keys() - common} == {"unlabelled"}
    assert {name.split("/")[0] for name in second.keys() - common} == {"labelled"}
    # The sixth of a class has the format of the first: it must be another recording all the same.
    good = [data for name, data in second.items() if Path(name).name not in DAMAGED]
    assert len(set(good)) == len(good)


def test_another_seed_makes_other_recordings(chorus: Chorus, tmp_path: Path) -> None:
    write_chorus(tmp_path, seed=1, recordings_per_species=1, unlabelled=0, seconds=SECONDS)
    first, second = contents(chorus.field.parent), contents(tmp_path)
    alike = {name for name in second if first.get(name) == second[name]}
    assert {Path(name).name for name in alike} == {"empty.wav", "header-only.wav", "text.wav"}


@pytest.mark.parametrize(
    "argument",
    [{"seed": -1}, {"recordings_per_species": 0}, {"unlabelled": -1}, {"seconds": 0.4}],
)
def test_arguments_below_their_minimum_are_refused(
    argument: dict[str, Any], tmp_path: Path
) -> None:
    ((name, value),) = argument.items()
    with pytest.raises(ValueError, match=rf"{name} is {value}; it must be at least"):
        write_chorus(tmp_path, **argument)
    assert not any(tmp_path.iterdir())


# ---------------------------------------------------------------- damaged files


def test_damaged_files_lie_beside_good_ones_everywhere(chorus: Chorus) -> None:
    def damaged(folder: Path) -> list[Path]:
        return [path for path in folder.rglob("*") if path.name in DAMAGED]

    assert {path.name for path in damaged(chorus.field)} == DAMAGED
    assert len(damaged(chorus.labelled)) == 3 and len(damaged(chorus.unlabelled)) == 4
    for folder in (chorus.labelled, chorus.unlabelled, chorus.field):
        assert all(good_files(path.parent) for path in damaged(folder))


def every(chorus: Chorus, name: str) -> list[Path]:
    return sorted(chorus.field.parent.rglob(name))


@pytest.mark.parametrize("name", ["empty.wav", "text.wav"])
def test_empty_and_text_files_do_not_open(chorus: Chorus, name: str) -> None:
    for path in every(chorus, name):
        assert (path.stat().st_size == 0) == (name == "empty.wav")
        with pytest.raises(soundfile.LibsndfileError, match="Format not recognised"):
            soundfile.SoundFile(path)


def test_header_only_opens_without_samples(chorus: Chorus) -> None:
    for path in every(chorus, "header-only.wav"):
        assert path.stat().st_size == 44
        assert int.from_bytes(path.read_bytes()[40:44], "little") == 2 * 22050 * SECONDS
        assert soundfile.info(path).frames == 0


def test_truncated_wav_holds_half_of_what_its_header_declares(chorus: Chorus) -> None:
    for path in every(chorus, "truncated.wav"):
        declared = int.from_bytes(path.read_bytes()[40:44], "little") // 2
        sound, _ = soundfile.read(path)
        assert declared == 22050 * SECONDS and len(sound) == pytest.approx(declared / 2, abs=22)
        assert np.isfinite(sound).all()


def test_truncated_mp3_stops_before_the_length_it_declares(chorus: Chorus) -> None:
    for path in every(chorus, "truncated.mp3"):
        with soundfile.SoundFile(path) as file:
            assert file.frames == 22050 * SECONDS
            assert 0.3 * file.frames < len(file.read()) < 0.6 * file.frames


def test_damaged_flac_opens_and_fails_in_its_middle(chorus: Chorus) -> None:
    for path in every(chorus, "damaged.flac"):
        with soundfile.SoundFile(path) as file:
            assert file.frames == 22050 * SECONDS
            assert len(file.read(file.frames // 8)) == file.frames // 8
            with pytest.raises(soundfile.LibsndfileError):
                file.read()


def test_nan_wav_is_whole_but_for_a_tenth_of_its_samples(chorus: Chorus) -> None:
    for path in every(chorus, "nan.wav"):
        info = soundfile.info(path)
        assert (info.subtype, info.frames) == ("FLOAT", 22050 * SECONDS)
        sound, _ = soundfile.read(path)
        assert np.isnan(sound).sum() == 2205
        assert np.abs(sound[~np.isnan(sound)]).max() < 1
