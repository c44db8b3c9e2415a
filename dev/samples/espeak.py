"""Speech made on the spot by eSpeak NG, from the package espeakng-loader: a WAV file of a sentence."""

import ctypes
import wave
from pathlib import Path

SYNCHRONOUS = 2  # of espeak_AUDIO_OUTPUT: samples go to the callback, and the call returns when all are there
UTF_8 = 1
CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


def say(path: Path, text: str, voice: str = "en", seconds: float = 0.0) -> Path:
    """Write a sentence as 16-bit mono WAV, with silence up to `seconds` after it, and return the path.

    voice: a name that eSpeak NG knows, such as "en", "en+f3" or "de".  Raises RuntimeError for another.
    """
    import espeakng_loader  # a test tool, not of the pack's requirements

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    data = str(espeakng_loader.get_data_path()).encode()
    rate = library.espeak_Initialize(SYNCHRONOUS, 0, data, 0)
    if rate <= 0:
        raise RuntimeError("eSpeak NG did not find its data.")
    samples = bytearray()

    @CALLBACK
    def collect(made, count, _events) -> int:
        if made and count > 0:
            samples.extend(ctypes.string_at(made, 2 * count))
        return 0

    try:
        library.espeak_SetSynthCallback(collect)
        if library.espeak_SetVoiceByName(voice.encode()):
            raise RuntimeError(f"eSpeak NG has no voice {voice}.")
        words = text.encode() + b"\0"
        if library.espeak_Synth(words, ctypes.c_size_t(len(words)), 0, 0, 0, UTF_8, None, None):
            raise RuntimeError(f"eSpeak NG could not say: {text}")
        library.espeak_Synchronize()
    finally:
        library.espeak_Terminate()
    samples.extend(bytes(max(0, 2 * round(seconds * rate) - len(samples))))
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(bytes(samples))
    return path
