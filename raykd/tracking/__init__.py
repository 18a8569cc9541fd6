"""What a run leaves behind and shows: run folder, history, MLflow, progress, tables, report and model card."""
