"""Short requests that lean on an open answer before them, as "In more detail, please.": open by themselves too.

A task of the curriculum brings what it is about. These do not; without them in the fit, a few words such as "Say more"
look like the beginning of a task.
"""

from __future__ import annotations

from deployments.models.training.curriculum.task import Task, Turn
from deployments.models.training.routing.open_prompts import OPEN

FOLLOW_UPS = """
Why is that?
How so?
How come?
Why not?
Really?
Are you sure?
Is that true?
Says who?
And then?
So what?
What else?
What next?
Anything else?
Any other ideas?
Go on.
Keep going.
Please continue.
Carry on from there.
Can you go on?
Say more about that.
Can you say more?
Could you elaborate?
Elaborate on that, please.
In more detail, please.
More details?
A bit more detail.
Expand on the first point.
Explain that again.
Explain it like I'm five.
I don't get it.
I don't understand the last part.
What do you mean by that?
What does that mean?
Put it more simply.
Simpler words, please.
Make it simpler.
Make it shorter.
Make it longer.
A little longer.
Too long.
Can you shorten it?
Cut it in half.
Sum it up.
In one sentence?
As a list?
Use bullet points.
Turn it into a poem.
Make it rhyme.
Make it funnier.
More formal, please.
Less formal.
Rewrite it politely.
Another version, please.
Try again.
Once more, but better.
Do it again with fewer adjectives.
Another one?
Give me another.
Two more of those.
Any examples?
For example?
Such as?
Like what?
Show me how.
Step by step?
How exactly?
How long does that take?
How much would that cost?
Is it safe?
Is it worth it?
What are the risks?
What about the downsides?
And the advantages?
Which would you choose?
Which is better?
What do you think?
What would you do?
And for children?
And in winter?
And if it rains?
What if I can't?
What if it fails?
Does that always work?
Since when?
Until when?
Where did that start?
Who came up with it?
Who says so?
When was that?
Where is that?
Same for beginners?
Now for a cat.
And for two people?
Without sugar?
Is there a cheaper way?
Can it be done faster?
Do you have a source?
Where can I read about it?
Translate that into Spanish.
Now in German.
In Italian, please.
That's great.
Interesting!
Makes sense.
Sounds good.
I disagree.
That's wrong.
That is not what I meant.
Perfect, and the ending?
Good. A title for it?
Change the ending.
Add a joke.
Leave out the numbers.
Why?
How?
When?
Where?
Who?
More.
Again.
Shorter.
Ok, and?
Hm, no.
¿Por qué?
¿Y luego?
Más corto.
Otro ejemplo.
¿Puedes explicarlo mejor?
Pourquoi ?
Et après ?
Plus court.
Un autre exemple ?
Peux-tu détailler ?
Warum das?
Und dann?
Kürzer, bitte.
Noch ein Beispiel?
Geht das genauer?
Perché?
E poi?
Più breve.
Por quê?
E depois?
Mais curto.
Waarom?
Korter.
Почему?
А дальше?
Покороче.
Ещё пример?
为什么?
然后呢?
再短一点
举个例子
详细一点
なぜ?
それから?
もっと短く
例えば?
왜요?
그다음은?
더 짧게
예를 들면?
لماذا؟
ثم ماذا؟
أقصر
क्यों?
फिर?
Neden?
Sonra?
Dlaczego?
A potem?
"""


def follow_ups() -> list[Task]:
    """Returns all of FOLLOW_UPS, each as a request of its own."""
    return [Task(OPEN, 1, (Turn("user", text),), "") for text in FOLLOW_UPS.strip().splitlines()]
