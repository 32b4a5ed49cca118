"""The words and parts that the patterns of identifiers are made of: months, titles, labels, what a name looks like."""

from __future__ import annotations

MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sep(?:t(?:ember)?)?|"
    r"oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
)
LATIN = [chr(code) for code in (*range(0xC0, 0x250), *range(0x1E00, 0x1F00))]
UPPER = "A-Z" + "".join(letter for letter in LATIN if letter.isupper())  # Łukasz and Örn are names too
LOWER = "a-z" + "".join(letter for letter in LATIN if letter.islower())
PARTICLE = (
    r"(?:[Vv]an|[Vv]on|[Dd]e[rnl]?|[Dd]ella|[Dd]i|[Dd]a|[Dd]os|[Dd]u|[Ll]a|[Ll]e|[Bb]in|[Bb]int|[Ii]bn|[Tt]er|[Ee]l)"
)
CAPITAL_PARTICLE = r"(?:Van|Von|De[rnl]?|Della|Di|Da|Dos|Du|La|Le|Bin|Bint|Ibn|Ter|El)"
WORD_OF_NAME = rf"[{UPPER}](?:[{LOWER}]+(?:[-'’][{UPPER}][{LOWER}]+){{0,3}}|[{UPPER}'’-]{{1,30}}[{LOWER}]*)"
NAME = rf"(?:(?:{PARTICLE}[ ]){{1,3}}|Mac|Mc|[OD]['’]|[AaEe]l-)?{WORD_OF_NAME}"
# The same from a capital on, for a pattern that begins with a name.
CAPITAL_NAME = rf"(?:{CAPITAL_PARTICLE}[ ](?:{PARTICLE}[ ]){{0,2}}|Mac|Mc|[OD]['’]|[AE]l-)?{WORD_OF_NAME}"
MORE_NAMES = rf"(?:[ \t]+(?:[A-Z]\.[ \t]*)?{NAME}){{0,2}}"
NAMES, CAPITAL_NAMES = f"{NAME}{MORE_NAMES}", f"{CAPITAL_NAME}{MORE_NAMES}"
TITLE = r"(?:Dr|Mr|Mrs|Ms|Miss|Prof|Mister|Misses|Missus|Madame?|Herr|Frau)"
LABEL = (
    r"(?:patient(?:'s)? name|name|attending|dictated by|referring physician|signed(?: by)?|pcp|contact|"
    r"next of kin)"
)
# What a patient answers in a dialogue, behind the same label as a name in the head of a note.
NO_ANSWER = (
    r"(?!(?:Yes|Yeah|Yep|Yup|No|Nope|Nah|Okay|Ok|OK|Oh|Uh|Um|Hmm|Mm|Ah|Well|Sure|Right|Alright|All|Fine|Good|Great|"
    r"Thanks|Thank|Hi|Hello|Hey|Bye|Goodbye|Sorry|Please|Maybe|Perhaps|Probably|Not|Never|Sometimes|Always|Usually|"
    r"Often|Just|Only|About|Around|Almost|It|Its|That|This|These|The|They|There|Then|Now|He|She|We|You|My|Me|Both|"
    r"What|When|Where|Who|Why|How|Which|Is|Are|Was|Were|Do|Does|Did|Can|Could|Should|Would|Will|May|And|But|Or|So|"
    r"Because|If|Actually|Absolutely|Exactly|Correct|Definitely|Certainly|Really|Of|In|On|At|For|From|With|Since|Sir|"
    r"Madam|Doctor|Doc|Nurse|Nothing|None|Some|Denies|Reports|States|Presents|Complains|Male|Female|Seen|Alert|Awake|"
    r"Stable|Feels|Doing|Had|Has|Unknown|Same|Self|See|Left|One|Two|Three|Four|Five|Six|Seven|Eight|Nine|Ten)\b)"
)
SPEAKER = (
    r"(?i:doctor|dr|nurse|clinician|physician|provider|therapist|interviewer|guest|family|mother|father|speaker|"
    r"student)"
)
# A line of a dialogue: it asks, or has three words in small letters in a row. "Doctor: J. Okafor" is none.
TURN = rf"[ \t]*+{SPEAKER}[^\n:]{{0,20}}:[^\n]*(?:[?!]|[ ][a-z']++[ ][a-z']++[ ][a-z'])"
# What can follow a name in the head of a note: a mark, a number, or the end of the line.
AFTER_HEADING = r"[ \t]*+(?:[|;/(\d]|,[ ]*+(?:\d|[A-Z]{2}|aged?\b|born\b|b\.)|$)|[ \t]{2}"
DEGREE = r"(?:M\.?D|R\.?N|D\.?O|N\.?P|P\.?A|Ph\.?D|M\.?B\.?B\.?S|FRCP)"
LAST_FIRST = rf"{NAME},[ ]*(?!{TITLE}\b){NAME}"
KIN = r"(?:husband|wife|son|daughter|mother|father|brother|sister|partner|friend|neighbou?r)"
NUMBERED = (
    r"(?:mrn|npi|medical record(?: (?:number|no\.?|#))?|record (?:number|no\.?)|account(?: (?:number|no\.?|#))?|acct|"
    r"accession(?: (?:number|no\.?|#))?|ssn|nhs(?: (?:number|no\.?))?|policy(?: (?:number|no\.?|#))?|"
    r"license(?: (?:number|no\.?|#))?|device(?: serial)?(?: (?:number|no\.?))?|serial(?: (?:number|no\.?))?|"
    r"patient id|unit (?:number|no\.?)|case (?:number|no\.?|#))"
)
STREET = (
    r"(?:street|st|avenue|ave|road|rd|lane|ln|drive|dr|boulevard|blvd|court|ct|way|place|pl|terrace|square|close|row|"
    r"gardens|crescent|grove|alley|parkway|pkwy|highway|hwy|circle|trail|mews)"
)
# Words before a name: an action with a person, or a role. Capitalized words that are no names are in NO_NAME.
BEFORE_NAME = (
    r"(?:seen by|brought in by|dictated by|attended by|ordered by|accompanied by|reviewed by|performed by|"
    r"spoke (?:with|to)|spoken to|discussed with|"
    r"(?:plan|care|results|findings|this)(?: was| were)?(?: agreed| discussed| shared)? with|follow[- ]?up with|"
    r"met with|cc|"
    r"called|contacted|informed|interpreter|signed|witnessed by|per|known to|lives with|named|under)"
)
AFTER_NAME = (
    r"(?:reports?|states?|denies|says|said|asks|asked|complains|tolerated|presented|presents|returned|returns|feels|"
    r"agrees|agreed|was (?:seen|admitted|started|discharged|transferred|referred|present)|has been|"
    r"will (?:call|arrange|bring))"
)
NO_NAME = (
    r"(?!(?:The|This|That|She|He|They|It|We|I|Patient|Pt|No|On|In|At|For|There|Denies|Reports|Doctor|Nurse|Family|"
    r"Mother|Father|Wife|Husband|Surgery|Cardiology|Neurology|Oncology|Radiology|Physical|Social|Home|Medicine|"
    r"Parkinson|Crohn|Hodgkin|Graves|Bell|Addison|Barrett|Marfan|Alzheimer|Glasgow|Foley|Babinski|Romberg|English|"
    r"Spanish|CT|MRI|ICU|ED|ER|IV|EKG|ECG|COPD|GI|OR|PT|OT)\b)"
)
PLACE_VERB = r"(?:transferred|admitted|discharged|referred|removed|seen|treated|worked|works|followed|performed)"
FACILITY = (
    r"(?:Hospital|Medical Center|Medical Centre|Clinic|Infirmary|Hospice|Nursing Home|Care Home|Health Center|"
    r"Health Centre|Rehabilitation Center)"
)
WEEKDAY = r"(?:mon|tue|tues|wed|thu|thurs|fri|sat|sun|(?:mon|tues|wednes|thurs|fri|satur|sun)day)"
WEEKDAY_DATE = (
    rf"\b{WEEKDAY}\b\.?,?[ ]++(?:the[ ]++)?(?:\d{{1,2}}(?:st|nd|rd|th)?(?:[ ]++of)?[ ]++{MONTH}\b|"
    rf"{MONTH}\b\.?[ ]++\d{{1,2}}(?:st|nd|rd|th)?\b)(?:,?[ ]++(?:19|20)\d{{2}}\b)?"
)
UNITS = r"(?:one|two|three|four|five|six|seven|eight|nine)"
SPELLED_AGE = rf"\b(?:ninety(?:[- ]{UNITS})?|(?:a|one)[ ]hundred(?:[ ]and[ ]{UNITS})?)(?=[- ]years?\b)"
# Words behind a title in small letters that are no names: MR imaging, Mrs. and ...
NO_LOWER_NAME = (
    r"(?!(?i:and|or|is|was|has|who|the|to|will|on|in|at|of|for|from|with|by|notified|aware|informed|called|reviewed|"
    r"ordered|imaging|angiography|scan|spectroscopy|patient)\b)"
)
# The first words that each alternative of a pattern can begin with.
MONTH_WORDS = (
    "jan january feb february mar march apr april may jun june jul july aug august sep sept september oct october nov "
    "november dec december"
)
WEEKDAY_WORDS = "mon monday tue tues tuesday wed wednesday thu thurs thursday fri friday sat saturday sun sunday"
KIN_WORDS = "husband wife son daughter mother father brother sister partner friend neighbor neighbour"
TITLE_WORDS = "dr mr mrs ms miss prof mister misses missus madam madame herr frau"
NUMBERED_WORDS = "mrn npi medical record account acct accession ssn nhs policy license device serial patient unit case"
BEFORE_NAME_WORDS = (
    "seen brought dictated attended ordered accompanied reviewed performed spoke spoken discussed plan care results "
    "findings this follow followup met cc called contacted informed interpreter signed witnessed per known lives named "
    "under"
)
