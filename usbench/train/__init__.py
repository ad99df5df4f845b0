"""Pretraining and fine-tuning: resumable loops on the device."""
