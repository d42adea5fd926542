"""Google's counts by modality, each with its own price."""

from lm_deluge.adapters.gemini_generate.usage import maybe_read_usage
from lm_deluge.models.registry import find_model

RAW = {
    "promptTokenCount": 1_000,
    "candidatesTokenCount": 300,
    "cachedContentTokenCount": 400,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 200}, {"modality": "AUDIO", "tokenCount": 800}],
    "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 400}],
    "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 290}, {"modality": "TEXT", "tokenCount": 10}],
}


def test_sound_and_images_are_counted_by_themselves() -> None:
    usage = maybe_read_usage(RAW)
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens) == (1_000, 300, 400)
    assert (usage.input_audio_tokens, usage.cache_read_audio_tokens, usage.output_image_tokens) == (800, 400, 290)
    assert usage.output_audio_tokens is None
    price = find_model("gemini-2.5-flash").price
    assert price is not None
    # 200 text at $0.30 a million, 400 audio at $1.00, 400 cached audio at $0.10, 300 output at $2.50
    assert round(price.cost(usage), 9) == round((200 * 0.3 + 400 * 1.0 + 400 * 0.1 + 300 * 2.5) / 1e6, 9)


def test_odd_details_are_passed_over() -> None:
    usage = maybe_read_usage({"promptTokenCount": 1, "promptTokensDetails": "none", "candidatesTokensDetails": [5, {}]})
    assert usage is not None
    assert (usage.input_tokens, usage.input_audio_tokens, usage.output_image_tokens) == (1, None, None)
    assert maybe_read_usage({"promptTokensDetails": []}) is None
