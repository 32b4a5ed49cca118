"""Training: TRL's SFTTrainer on rows that are ready, with exact resume and a step that wastes nothing.

Other rooms use `AdapterTrainer`, `TagTrainer`, `rows.documents.read_documents` and `planner`.
"""
