"""Instruction following: IFEval's prompts, and its checks written from the paper's description.

Zhou et al. 2023, "Instruction-Following Evaluation for Large Language Models", arXiv 2311.07911. The paper names 25
kinds of instruction that a program can check. Where it leaves open what counts, a check takes the reading that a person
would, and says which in its docstring; so scores can differ by a little from those of other implementations.
"""
