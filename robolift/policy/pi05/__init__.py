"""pi0.5 in JAX: SigLIP, a vision-language Gemma and an action expert that share attention, trained by flow matching.

Sources: Physical Intelligence, "pi0.5: a Vision-Language-Action Model with Open-World Generalization", 2025 (arXiv
2504.16054); openpi, whose parameter tree this one equals name by name.
"""
