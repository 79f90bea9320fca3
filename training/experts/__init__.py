"""Training the experts: one MiLoRA adapter a domain, on a backbone whose weights never change."""
