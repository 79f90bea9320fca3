"""VideoLLaMA2: CLIP over whole frames, the STC connector, Mistral or Qwen2 (arXiv 2406.07476); see
`modeling_videollama2`."""

from __future__ import annotations

from milora.architectures.spec import Architecture, attention_of, frames_by_batch_row

VIDEOLLAMA2 = Architecture(
    model_type="videollama2",
    # The connector's 3-D convolution is the spatial-temporal convolution of arXiv 2503.06064.
    temporal=("connector.sampler.0", *attention_of("language_model.model.layers")),
    # conv2 between conv1 and conv3 is depthwise, and experts go on ungrouped convolutions only.
    spatial=(
        "vision_tower.embeddings.patch_embedding",
        "vision_tower.encoder.layers.*.mlp.fc1",
        "vision_tower.encoder.layers.*.mlp.fc2",
        "connector.s1.b*.conv1.conv",
        "connector.s1.b*.conv3.conv",
    ),
    # The second stage, s2, is left out: it sees fewer frames than a video has.
    rows=(
        ("language_model.*", "prompt"),
        ("vision_tower.*", "frames"),
        ("connector.s1.*", "frames"),
        ("connector.sampler.*", "videos"),
        ("connector.readout.*", "videos"),
    ),
    counts=frames_by_batch_row,
)
