"""The trainer: one domain's adapter on a frozen backbone, from a typed config to a published version.

    config = load_config(Path("train.toml"))
    job = TrainingJob(backbone, "traffic", config, train=samples, validation=held_out, run=Path("runs/traffic"))
    entry = publish_outcome(job, job.run_to_end(), root)

`Samples` is the seam to the data, `ForwardPass` to the architecture, `Method` to what is trained.
"""
