"""lm-evaluation-harness whose requests say where the context ends, so that a latent model infers its latents from the whole context and
from nothing else. Used as lm-eval itself: python3 client.py run --model ltm-context --model_args … --tasks …"""

from lm_eval.__main__ import cli_evaluate
from lm_eval.api.registry import register_model
from lm_eval.models.openai_completions import LocalCompletionsAPI


class Prompt(list):
    """The tokens of a prompt."""

    context = 0


@register_model("ltm-context")
class WithContext(LocalCompletionsAPI):
    def batch_loglikelihood_requests(self, chunks):
        prompts, contexts, keys = super().batch_loglikelihood_requests(chunks)
        marked = []
        for tokens, context in zip(prompts, contexts):
            marked.append(Prompt(tokens))
            marked[-1].context = context
        return marked, contexts, keys

    def _create_payload(self, messages, generate=False, **options):
        body = super()._create_payload(messages, generate=generate, **options)
        if not generate:
            body["context_tokens"] = [prompt.context for prompt in messages]
        return body


if __name__ == "__main__":
    cli_evaluate()
